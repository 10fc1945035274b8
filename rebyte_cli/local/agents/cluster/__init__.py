"""Runs that the user's launcher starts, maybe on another machine."""
