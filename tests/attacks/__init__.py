"""Attacks that were shown to work once, each kept as a test of the kind that it is one of."""
