"""A small Rebyte of its own, on this machine: an independent witness of the wire."""
