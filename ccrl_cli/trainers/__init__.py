"""Backends that update a model."""
