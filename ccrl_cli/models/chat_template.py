"""Chat prompts as a model's template writes them, checked once: nothing may be lost in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ccrl_cli.errors import PreconditionError

Messages = Sequence[Mapping[str, str]]

_SYSTEM, _USER, _ANSWER = "Rule seven holds.", "Sentence nine stands.", "Answer eleven."
_FORM = "_ccrl_chat_form"


def render_chat(tokenizer: Any, messages: Messages) -> str:
    """Return a chat prompt as one string that ends where the answer begins, thinking off.

    Templates differ in what they take. The first form of the messages in which a probe shows both
    the instructions and the sentence is used: as they are, with contents as parts, with the
    instructions in front of the first message of the user, or both.

    Raises:
        PreconditionError: the tokenizer has no chat template, or its template shows no form whole.
    """
    form = getattr(tokenizer, _FORM, None)
    if form is None:
        form = _find_form(tokenizer)
        setattr(tokenizer, _FORM, form)
    return _apply(tokenizer, form(messages))


def end_of_turn(tokenizer: Any) -> int | None:
    """Return the token that the template puts behind an answer; None if that is no token."""
    turns = [
        {"role": "user", "content": _USER},
        {"role": "assistant", "content": _ANSWER},
    ]
    form = getattr(tokenizer, _FORM, None) or _as_it_is
    try:
        text = str(tokenizer.apply_chat_template(form(turns), tokenize=False))
    except Exception:  # templates are programs; one that fails here says nothing about the end
        return None
    if _ANSWER not in text:
        return None
    after = text.rpartition(_ANSWER)[2].lstrip()
    ids = list(tokenizer(after, add_special_tokens=False)["input_ids"]) if after else []
    special = set(tokenizer.all_special_ids) | {
        number for number, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    return int(ids[0]) if ids and ids[0] in special else None


def _find_form(tokenizer: Any) -> Callable[[Messages], list[dict[str, Any]]]:
    name = getattr(tokenizer, "name_or_path", "") or "the model"
    if not getattr(tokenizer, "chat_template", None):
        raise PreconditionError(
            f"{name} has no chat template, so it cannot be asked",
            hint="choose the instruction-tuned version of the model (--model, or model.name)",
        )
    probe = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    problem = "it shows neither instructions nor sentence"
    for form in (_as_it_is, _in_parts, _folded, _folded_in_parts):
        try:
            text = _apply(tokenizer, form(probe))
        except Exception as error:  # templates are programs, and raise what they like
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
            continue
        if _SYSTEM in text and _USER in text and "{'type'" not in text:
            return form
    raise PreconditionError(
        f"the chat template of {name} does not write out a prompt whole ({problem})",
        hint="choose another model (--model, or model.name), or correct its chat_template",
    )


def _apply(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    return str(
        tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    )


def _as_it_is(messages: Messages) -> list[dict[str, Any]]:
    return [dict(message) for message in messages]


def _in_parts(messages: Messages) -> list[dict[str, Any]]:
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        for message in messages
    ]


def _folded(messages: Messages) -> list[dict[str, Any]]:
    """Put the instructions in front of what the user says first."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    rest = [dict(message) for message in messages if message["role"] != "system"]
    first = next((message for message in rest if message["role"] == "user"), None)
    if system and first is not None:
        first["content"] = f"{system}\n\n{first['content']}"
    return rest


def _folded_in_parts(messages: Messages) -> list[dict[str, Any]]:
    return _in_parts(_folded(messages))
