"""Backends that sample completions."""
