"""What of a completion is the answer: reasoning, channels and end tokens cut off."""

from __future__ import annotations

import re

# Opening and closing marks of reasoning, as models of several families write them.
_CLOSING = re.compile(
    r"</(?:think|thinking|thought|reasoning|reflection|seed:think)>|\[/THINK\]|◁/think▷"
    r"|<\|/?(?:end_of_thought|end_think)\|>|<channel\|>",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"<(?:think|thinking|thought|reasoning|reflection|seed:think)>|\[THINK\]|◁think▷"
    r"|<\|(?:begin_of_thought|begin_think)\|>|<\|channel>\s*thought",
    re.IGNORECASE,
)
# gpt-oss (Harmony): channels analysis, commentary, final; special tokens kept or skipped.
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_BARE_CHANNEL = re.compile(
    r"\s*(?:<\|start\|>\s*assistant|assistant)?(analysis|commentary)(?![a-z])"
)
_BARE_FINAL = "assistantfinal"
_WRAPPERS = (
    re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE),
    re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|$)", re.DOTALL),
)
_ENDS = re.compile(
    r"(?:\s|\ufeff|</s>|<eos>|<end_of_turn>|<turn\|>|\[/?INST\]|<\|(?!channel\|)[\w▁]{2,30}\|>)*+\Z"
)
_LONGEST_END = 400


def answer_part(text: str) -> str | None:
    """Return the answer in a completion, or None if its reasoning never came to one.

    The answer is what follows the last closing mark of reasoning, or the final channel; what the
    templates of models put around it (end tokens, ``<answer>``) is taken off. A text without such
    marks is all answer.

    Args:
        text: the completion as it was sampled.
    """
    part = _after_channels(text)
    if part is None:
        return None
    closings = [match.end() for match in _CLOSING.finditer(part)]
    rest = part[closings[-1] :] if closings else part
    if _OPENING.search(rest) and not _json_first(rest):
        return None
    for wrapper in _WRAPPERS:
        found = wrapper.search(rest)
        if found:
            rest = found.group(1)
    tail = max(0, len(rest) - _LONGEST_END)
    return (rest[:tail] + _ENDS.sub("", rest[tail:])).lstrip("\ufeff")


_JSON_FIRST = re.compile(r"\s*+(?:\[\s*+[\[{\]]|\{\s*+[\"'])")


def _json_first(text: str) -> bool:
    """Return whether the answer begins before any mark, which is then part of a mention."""
    return _JSON_FIRST.match(text) is not None


def _after_channels(text: str) -> str | None:
    """Return what the final channel of Harmony says; None if there are channels and none final."""
    channels = list(_CHANNEL.finditer(text))
    if channels:
        return text[channels[-1].end() :] if channels[-1].group(1) == "final" else None
    if text.lstrip().startswith("<|channel|>"):
        return None
    if _BARE_CHANNEL.match(text) or text.lstrip().startswith(("analysis", "commentary")):
        place = text.rfind(_BARE_FINAL)
        return text[place + len(_BARE_FINAL) :] if place >= 0 else None
    return text


def message_text(content: object) -> str | None:
    """Return the text of a chat message's content: a text, or parts of which text is one kind.

    Thinking parts are left out; None stands for no content at all.

    Raises:
        TypeError: the content is neither a text nor a list of parts.
    """
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError(f"content is a {type(content).__name__}")
    texts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            kind, text = part.get("type", "text"), part.get("text")
            if kind in ("text", "output_text") and isinstance(text, str):
                texts.append(text)
        else:
            raise TypeError(f"a part of the content is a {type(part).__name__}")
    return "".join(texts)
