"""Whether a prompt fits a model: its context, and a limit of the user's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

Messages = Sequence[Mapping[str, str]]

#: Tokens that a chat template may add to the messages, generously.
TEMPLATE_TOKENS = 1024


def context_tokens(folder: Path) -> int | None:
    """Return how many tokens a model's configuration allows together; None if it does not say."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for part in (config, config.get("text_config") or {}):
        for name in ("max_position_embeddings", "n_positions"):
            if isinstance(part.get(name), int):
                return int(part[name])
    return None


class PromptMeter:
    """Compares prompts with the room that a model has for them.

    A token stands for one byte at least, so a prompt of fewer bytes than the room, less what a
    template adds, fits without being tokenised: nearly every prompt.

    Args:
        folder: model folder, for its configuration and tokenizer.
        max_tokens: longest completion; the context holds it too.
        max_prompt_tokens: the user's limit.

    Attributes:
        room: tokens that a prompt may have.
    """

    def __init__(self, folder: Path, *, max_tokens: int, max_prompt_tokens: int) -> None:
        context = context_tokens(folder)
        self.room = max_prompt_tokens
        if context is not None:
            self.room = max(1, min(max_prompt_tokens, context - max_tokens))
        self._folder = folder

    def fits(self, prompts: Iterable[Messages]) -> bool:
        """Return whether all of an input's prompts fit; they differ in the order of types alone."""
        return all(self._fits(prompt) for prompt in prompts)

    def _fits(self, prompt: Messages) -> bool:
        bytes_ = sum(len(m["content"].encode("utf-8", "surrogatepass")) for m in prompt)
        return bytes_ + TEMPLATE_TOKENS <= self.room or self.tokens(prompt) <= self.room

    def tokens(self, prompt: Messages) -> int:
        """Return the tokens of a prompt, its template included."""
        from ccrl_cli.models.chat_template import render_chat
        from ccrl_cli.models.loading import encode_prompt

        return len(encode_prompt(self._tokenizer, render_chat(self._tokenizer, prompt)))

    @cached_property
    def _tokenizer(self) -> Any:
        from ccrl_cli.models.loading import load_tokenizer

        return load_tokenizer(self._folder)
