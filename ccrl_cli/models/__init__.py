"""Model references, download, conversion and loading."""
