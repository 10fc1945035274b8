"""The wire, usable as a library: the client, its transport, events and shapes."""
