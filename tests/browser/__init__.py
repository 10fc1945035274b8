"""Tests of the local service's pages in a real browser: `make browser`."""
