"""Decoding held to the answer format: which tokens may come next, by the automaton's state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ccrl_cli.core.automaton import AnswerAutomaton
from ccrl_cli.errors import PreconditionError


class TokenConstraint:
    """Masks of a vocabulary for the states of an `AnswerAutomaton`, made when first asked for.

    Args:
        type_names: names of the types as prompts show them.
        tokenizer: a byte-level tokenizer of transformers.
        end_ids: tokens that end an answer; they are allowed where the answer is complete.

    Raises:
        PreconditionError: the tokens of this tokenizer are no byte strings.
    """

    def __init__(self, type_names: Sequence[str], tokenizer: Any, end_ids: Sequence[int]) -> None:
        self._automaton = AnswerAutomaton(type_names)
        self._tokens = token_bytes(tokenizer)
        self._end_ids = list(end_ids)
        self._by_first: dict[int, list[int]] = {}
        for number, data in enumerate(self._tokens):
            if data:
                self._by_first.setdefault(data[0], []).append(number)
        self._next: dict[int, dict[int, int]] = {}
        self._masks: dict[tuple[int, int], torch.Tensor] = {}
        self.start = self._automaton.start

    def advance(self, state: int, token: int) -> int:
        """Return the state after a token that was allowed; an end token changes nothing."""
        return self._following(state).get(token, state)

    def blocked(self, states: Sequence[int], width: int, device: torch.device) -> torch.Tensor:
        """Return (B, V) booleans, True where a token must not come next.

        Args:
            states: B states.
            width: V, logits of the model; it may exceed the tokenizer's vocabulary.
            device: where the logits are.
        """
        return torch.stack([self._mask(state, width, device) for state in states])

    def _mask(self, state: int, width: int, device: torch.device) -> torch.Tensor:
        known = self._masks.get((state, width))
        if known is None:
            known = torch.ones(width, dtype=torch.bool)
            allowed = list(self._following(state))
            if state == self._automaton.accepting:
                allowed = self._end_ids
            known[torch.tensor(allowed, dtype=torch.long)] = False
            known = self._masks[state, width] = known.to(device)
        return known

    def _following(self, state: int) -> dict[int, int]:
        """Return the tokens that may come next, with the state after each."""
        known = self._next.get(state)
        if known is None:
            firsts = self._automaton.first_bytes(state)
            buckets = self._by_first if firsts is None else firsts & self._by_first.keys()
            known = {}
            for byte in buckets:
                for number in self._by_first[byte]:
                    after = self._automaton.walk(state, self._tokens[number])
                    if after is not None:
                        known[number] = after
            self._next[state] = known
        return known


def token_bytes(tokenizer: Any) -> list[bytes]:
    """Return the bytes of each token; special and added tokens have none.

    Raises:
        PreconditionError: the tokenizer is not byte-level.
    """
    alphabet = _byte_alphabet()
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    words = tokenizer.get_vocab()
    tokens = [b""] * (max(words.values()) + 1)
    for word, number in words.items():
        if number in special:
            continue
        try:
            tokens[number] = bytes(alphabet[character] for character in word)
        except KeyError:
            raise PreconditionError(
                f"generation.constrained: the token {word!r} of this model is not made of bytes",
                hint="choose --backend vllm, or --set generation.constrained=false",
            ) from None
    return tokens


def _byte_alphabet() -> dict[str, int]:
    """Return the characters that byte-level tokenizers write bytes as (Radford et al. 2019)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {chr(byte): byte for byte in shown} | {
        chr(256 + place): byte for place, byte in enumerate(hidden)
    }
