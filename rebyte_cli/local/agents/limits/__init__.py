"""The usage limits of accounts, and what a run has used of its models."""
