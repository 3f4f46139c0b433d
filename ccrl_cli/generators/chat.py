"""Reading a chat completion: the one place where a server's answer becomes a completion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ccrl_cli.core.reasoning import answer_part, message_text
from ccrl_cli.generators.http import RefusedError, TemporaryError
from ccrl_cli.records import Completion, Finish

_FINISHES: Mapping[str, Finish] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens"), "length"),
}
#: Finishes after which the same request may end better.
_PASSING = frozenset({"error", "abort", "cancelled", "timeout", "network_error"})
#: Log-probabilities from here down are a server's way to say that it does not know.
_LOWEST = -1000.0
_REASONING = ("reasoning_content", "reasoning", "thinking")


def completion(content: Any) -> Completion:
    """Read a chat completion.

    Raises:
        TemporaryError: it is none, or it reports an error that may pass.
        RefusedError: it is an error about the request itself (under status 200).
    """
    if isinstance(content, dict) and content.get("error"):
        _raise_error(content["error"])
    try:
        choice = content["choices"][0]
        message = choice["message"]
        text = message_text(message.get("content"))
        finish = choice.get("finish_reason")
        usage = content.get("usage")
        refusal = message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise TemporaryError(f"the answer is no chat completion: {str(content)[:200]}") from error
    reasoning = next((message[f] for f in _REASONING if isinstance(message.get(f), str)), None)
    known = _FINISHES.get(str(finish).casefold(), "error")
    reason = None
    if isinstance(refusal, str) and refusal and not text:
        known, reason = "error", refusal[:200]
    elif known == "error":
        reason = str(finish)[:200]
    logprob, count = _spelled(text or "", _steps(choice), bool(reasoning))
    return Completion(
        text=text or "",
        mean_logprob=logprob,
        num_tokens=_count(usage, count, bool(reasoning)),
        finish=known,
        reasoning=reasoning or None,
        reason=reason,
    )


def may_pass(found: Completion) -> bool:
    """Return whether an answer was broken off in a way that another attempt may not be."""
    return found.finish == "error" and (found.reason or "").casefold() in _PASSING


def _raise_error(error: Any) -> None:
    message = error.get("message", error) if isinstance(error, dict) else error
    code = error.get("code") if isinstance(error, dict) else None
    said = " ".join(str(message).split())[:300]
    if isinstance(code, int) and 400 <= code < 500 and code not in (408, 425, 429):
        raise RefusedError(code, said)
    raise TemporaryError(f"an error in place of an answer: {said}")


def _steps(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tokens with log-probabilities, as far as they are some."""
    logprobs = choice.get("logprobs")
    steps = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(steps, list):
        return []
    return [step for step in steps if isinstance(step, dict)]


def _spelled(
    text: str, steps: Sequence[Mapping[str, Any]], reasoned: bool
) -> tuple[float | None, int | None]:
    """Return the mean log-probability and number of the tokens that spell an answer.

    They are the tail of the tokens, control tokens behind it apart, whose pieces join to the
    answer. Where they cannot be told from those of the reasoning, both are unknown.
    """
    answer = answer_part(text)
    wanted = (answer or "").strip()
    pieces = [_piece(step) for step in steps]
    first = _first_of(wanted, pieces) if wanted else None
    if first is None:
        if reasoned or answer is None or wanted != text.strip():
            return None, None
        own = list(steps)
    else:
        own = list(steps[first:])
    return _mean([step.get("logprob") for step in own]), len(own) or None


def _piece(step: Mapping[str, Any]) -> str:
    """Return the text of a token."""
    stated = step.get("bytes")
    if isinstance(stated, list) and stated and all(type(b) is int and 0 <= b < 256 for b in stated):
        return bytes(stated).decode("utf-8", "surrogateescape")
    token = step.get("token")
    return token if isinstance(token, str) else ""


def _first_of(answer: str, pieces: Sequence[str]) -> int | None:
    """Return the first of the tokens whose pieces end in the answer, or None."""
    joined = "".join(pieces).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    place = joined.rfind(answer)
    if place < 0:
        return None
    position = 0
    for index, piece in enumerate(pieces):
        position += len(piece)
        if position > place:
            return index
    return None


def _mean(values: Sequence[Any]) -> float | None:
    """Return the mean of log-probabilities; None if one of them is none."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if not numbers or len(numbers) < len(values):
        return None
    if not all(math.isfinite(v) and _LOWEST < v < 1e-3 for v in numbers):
        return None
    return round(min(0.0, sum(numbers) / len(numbers)), 6)


def _count(usage: Any, spelled: int | None, reasoned: bool) -> int:
    """Return the tokens of an answer: what the server counts, reasoning left out if it is known."""
    if reasoned and spelled is not None:
        return spelled
    stated = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if type(stated) is int and stated >= 0:
        return stated
    return spelled or 0


def prompt_tokens(content: Any) -> int | None:
    """Return how many tokens of the prompt the server says it has read, if it does."""
    usage = content.get("usage") if isinstance(content, dict) else None
    stated = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return stated if type(stated) is int and stated > 0 else None
