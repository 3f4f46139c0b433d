"""From sentences to records on disk."""
