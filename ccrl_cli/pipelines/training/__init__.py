"""From draws to an adapter."""
