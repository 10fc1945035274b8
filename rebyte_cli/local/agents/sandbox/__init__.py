"""The jail, what it shows and what it reaches of the network, and programs in it."""
