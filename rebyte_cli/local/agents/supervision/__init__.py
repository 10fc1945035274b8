"""A run from its admission to its record, and the process that looks after it."""
