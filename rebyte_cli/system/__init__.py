"""What the client and the local service both stand on. Imports nothing else of ours but errors."""
