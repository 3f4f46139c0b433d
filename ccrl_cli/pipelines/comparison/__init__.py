"""From recipes and seeds to a tested answer."""
