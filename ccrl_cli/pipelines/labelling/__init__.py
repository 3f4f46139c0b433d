"""From stored completions to labels with confidence."""
