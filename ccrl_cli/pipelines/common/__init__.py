"""What a profile means: sentences, prompts, weights, manifest."""
