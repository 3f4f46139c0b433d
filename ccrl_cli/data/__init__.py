"""Input files, sample corpora and prompts."""
