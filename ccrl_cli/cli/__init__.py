"""The command line: thin commands over pipelines."""
