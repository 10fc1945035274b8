"""A run from the decision to start it to its record, and the process that looks after it."""
