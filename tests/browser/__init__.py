"""Tests of the local service's pages and a batch's report in a real browser: `make browser`."""
