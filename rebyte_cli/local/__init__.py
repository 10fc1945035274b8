"""A small implementation of the Rebyte service on this machine, independent of the client."""
