"""ccrl: test-time reinforcement learning of language models on their own labels."""

__version__ = "0.2.0"
