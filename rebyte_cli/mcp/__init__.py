"""`rebyte mcp`: the tools that agents call over the Model Context Protocol."""
