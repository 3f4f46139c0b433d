"""The second prompt of type evidence: what type has this span?

``answer`` puts the question into the words of the first prompt: an answer that has begun with the
span goes on with a type. That is what a model warmed up on such answers has learnt. ``question``
asks in a few plain words, for chat models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ccrl_cli.data.prompts import PromptTemplate, described_types, render, shown
from ccrl_cli.data.type_names import TypeNames

Messages = list[dict[str, str]]

QUESTIONS = ("answer", "question")
"""Names of the ways to ask."""

_SYSTEM = "You classify named entities. Answer with one of the types and nothing else."
_USER = 'Text: {text}\nTypes: {types}\nWhich type is "{span}"?'
_VERSION = 1


@dataclass(frozen=True, slots=True)
class TypeQuestion:
    """One prompt, and what follows it for each span and type, spans outermost."""

    messages: Messages
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class TypePrompt:
    """How a span's type is asked for.

    Attributes:
        question: ``answer`` or ``question``.
        template: the wording of the first prompt.
        types: T type identifiers, in the order in which they are scored.
        names: their prompt names.
        order: the same identifiers in the order in which they are listed; None: as in `types`.
        special_tokens: control tokens of the model's tokenizer.
        end: text that ends an answer; read by ``question``.
    """

    question: str
    template: PromptTemplate
    types: Sequence[str]
    names: TypeNames
    special_tokens: Collection[str] = ()
    end: str = ""
    order: Sequence[str] | None = None

    def ask(self, text: str, spans: Sequence[str]) -> list[TypeQuestion]:
        """Return the prompts that score each span under each type, in that order.

        Args:
            text: the sentence.
            spans: S spans of it.
        """
        ask: Callable[[str, Sequence[str]], list[TypeQuestion]] = {
            "answer": self._begun_answer,
            "question": self._plain_question,
        }[self.question]
        return ask(text, spans) if spans else []

    def digest(self) -> str:
        """Return 16 hex digits that identify the wording."""
        words = [self.question, self.template.digest, _SYSTEM, _USER, str(_VERSION)]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]

    def _begun_answer(self, text: str, spans: Sequence[str]) -> list[TypeQuestion]:
        messages = render(
            self.template,
            text,
            self.types,
            self.names,
            self.order,
            special_tokens=self.special_tokens,
        )
        continuations = tuple(
            f'[{{"text": {self._quoted(span)}, "type": {self._quoted(self.names.name(kind))}}}'
            for span in spans
            for kind in self.types
        )
        return [TypeQuestion(messages, continuations)]

    def _plain_question(self, text: str, spans: Sequence[str]) -> list[TypeQuestion]:
        order = self.order or self.types
        listed = ", ".join(map(self.names.name, order)) + described_types(order, self.names)
        answers = tuple(self.names.name(kind) + self.end for kind in self.types)
        questions = []
        for span in spans:
            user = _USER.format(
                text=shown(text, self.special_tokens),
                types=listed,
                span=shown(span, self.special_tokens),
            )
            messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": user}]
            questions.append(TypeQuestion(messages, answers))
        return questions

    def _quoted(self, text: str) -> str:
        return json.dumps(shown(text, self.special_tokens), ensure_ascii=False)
