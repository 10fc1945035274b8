"""One module for each agent, what they have in common, and finding their programs."""
