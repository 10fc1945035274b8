"""End-to-end tests with the real agents, offline: `make agents`."""
