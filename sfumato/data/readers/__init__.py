"""Formats of picture sets, each read into Records."""
