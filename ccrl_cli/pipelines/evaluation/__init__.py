"""From weights to scored answers."""
