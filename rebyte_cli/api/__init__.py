"""The HTTP API as a library: the client, its transport, views of its responses."""
