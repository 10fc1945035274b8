"""Real agents on this machine: each run is a jailed program with a detached supervisor."""
