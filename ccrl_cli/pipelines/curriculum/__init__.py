"""From labels to what opens when."""
