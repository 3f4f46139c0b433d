"""The dynamic curriculum at work: evidence, teachers, new targets, new order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ccrl_cli.core.agreement import PosteriorOf
from ccrl_cli.core.curriculum import CurriculumSampler
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.refresh import Refresher
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.models.loading import LoadedModel, free_memory
from ccrl_cli.models.merging import answering
from ccrl_cli.models.sampling import PromptRequest, Sample, Sampling
from ccrl_cli.records import Parse, PseudoLabel
from ccrl_cli.trainers import ranks
from ccrl_cli.trainers.base import TrainInput
from ccrl_cli.trainers.rollouts import Decoder, merged_decoder
from ccrl_cli.trainers.teachers import EmaTeacher, make_teacher

T = TypeVar("T")

TEACHER_FILE = "teacher.safetensors"
"""Moving average of the adapter, inside a checkpoint."""


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """How a teacher answers: as the store's completions were drawn, so that votes compare.

    Attributes:
        decay: share of the average that a step keeps (``ema``).
        from_adapter: training goes on from an adapter, so that turning it off would undo that too.
        prompts: rendered prompts of an input, one for each of its answers.
        sampling: how they are drawn.
        batch_size: inputs in flight.
        seed: seed of the run.
        last_step: after this step there is nothing left to refresh for.
    """

    decay: float
    from_adapter: bool
    prompts: Callable[[str], Sequence[str]]
    sampling: Sampling
    batch_size: int
    seed: int
    last_step: int


class TypeSource(Protocol):
    """Asks a teacher for the types of the spans that its answers name."""

    def score(self, model: Any, parses: Mapping[str, Sequence[Parse]]) -> Mapping[str, Any]:
        """Return what the model, in eval mode, says of the types of each input's spans."""

    def weigh(
        self, scores: Mapping[str, Any], parses: Mapping[str, Sequence[Parse]]
    ) -> tuple[Mapping[str, Mapping[str, str]], Mapping[str, PosteriorOf]]:
        """Return the type of each span and the posteriors of what answers state, by input id."""


class LabelRefresh:
    """Refreshes labels while training; see `core.refresh`.

    Args:
        refresher: keeps the labels and their guard.
        inputs: training inputs by id, exchanged in place.
        sampler: put into the new order.
        make_input: makes a training input of a label.
        make_order: makes an order of all inputs from confidences.
        loaded: model and tokenizer.
        settings: how a teacher answers.
        journal: gets the records of refreshes.
        types: asks a teacher for types; None: labels do not read them, or nobody can be asked.
        decode: draws the teacher's answers; None: with the adapter folded into the weights.
    """

    def __init__(  # noqa: PLR0913 - the pieces that it ties together
        self,
        refresher: Refresher,
        inputs: MutableMapping[str, TrainInput],
        sampler: CurriculumSampler,
        make_input: Callable[[str, PseudoLabel], TrainInput],
        make_order: Callable[[Mapping[str, float]], Sequence[str]],
        loaded: LoadedModel,
        settings: TeacherSettings,
        journal: Callable[[dict[str, Any]], None],
        types: TypeSource | None = None,
        decode: Decoder | None = None,
    ) -> None:
        self._refresher, self._inputs, self._sampler = refresher, inputs, sampler
        self._make_input, self._make_order = make_input, make_order
        self._loaded, self._settings = loaded, settings
        self._decode, self._journal = decode or merged_decoder(loaded), journal
        self._types = types
        source = refresher.settings.source
        if source == "base" and settings.from_adapter:
            self._teacher: Any = EmaTeacher(loaded.model, 1.0)
        else:
            self._teacher = make_teacher(source, loaded.model, decay=settings.decay)

    def observe(self, input_id: str, texts: list[str], mean_logprobs: list[float]) -> None:
        """Take the rollouts of one group as evidence, unless a teacher gives it."""
        if self._teacher is None:
            types = self._inputs[input_id].types
            parses = [parse_completion(text, types) for text in texts]
            self._refresher.observe(input_id, parses, mean_logprobs)

    def after_step(self, step: int, model: Any) -> dict[str, Any]:
        """Refresh if it is time; return what the record of the step gains."""
        if self._teacher is not None:
            self._teacher.update(model)
        if not self._refresher.is_due(step) or step >= self._settings.last_step:
            return {}
        if self._teacher is not None:
            self._ask_teacher(step, model)
        before = dict(self._refresher.labels)
        refreshed = self._refresher.refresh(step)
        for key, label in self._refresher.labels.items():
            if label is not before[key]:  # estimated again
                self._inputs[key] = self._make_input(key, label)
        self._sampler.reorder(self._make_order(refreshed.confidence), refreshed.confidence)
        for record in refreshed.records:
            self._journal(record)
        return {"label_flips": len(refreshed.labels)}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later refreshes depend on but weights."""
        return self._refresher.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, with the targets that belong to it."""
        self._refresher.load_state_dict(state)
        for key, label in self._refresher.labels.items():
            self._inputs[key] = self._make_input(key, label)

    def save_weights(self, folder: Path) -> None:
        """Write the teacher's weights, if it has any of its own."""
        weights = self._teacher.state_dict() if self._teacher is not None else {}
        if weights:
            from safetensors.torch import save_file

            values = {name: value.cpu().contiguous() for name, value in weights.items()}
            save_file(values, str(folder / TEACHER_FILE))

    def load_weights(self, folder: Path) -> None:
        """Read what `save_weights` wrote."""
        if (folder / TEACHER_FILE).is_file():
            from safetensors.torch import load_file

            self._teacher.load_state_dict(load_file(str(folder / TEACHER_FILE)))

    def _ask_teacher(self, step: int, model: Any) -> None:
        """Draw completions of every input, each process its share of them.

        Also of those that are not open yet: their labels and their place in the order are what
        a refresh is for, and the prior of saying some types is that of all spans.
        """
        mine = self._sampler.order[ranks.rank() :: ranks.world_size()]
        parses: dict[str, list[Parse]] = {}
        logprobs: dict[str, list[float]] = {}
        with self._teacher.applied(model):
            for first in range(0, len(mine), self._settings.batch_size):
                batch = mine[first : first + self._settings.batch_size]
                for key, samples in self._drawn(model, batch, step).items():
                    types = self._inputs[key].types
                    texts = [self._loaded.text(sample.token_ids) for sample in samples]
                    parses[key] = [parse_completion(text, types) for text in texts]
                    logprobs[key] = [sample.mean_logprob for sample in samples]
            scores = self._scored(model, parses)
        parses, logprobs = _everyones(parses), _everyones(logprobs)
        if self._types is not None:
            self._refresher.renew_types(*self._types.weigh(_everyones(scores), parses))
        for key, stated in parses.items():
            self._refresher.observe(key, stated, logprobs[key])

    def _drawn(self, model: Any, batch: Sequence[str], step: int) -> dict[str, list[Sample]]:
        """Return the teacher's answers about some inputs; when memory runs out, by halves."""
        found: dict[Any, list[Sample]] | None
        requests = [request for key in batch for request in self._requests(key, step)]
        try:
            found = self._decode(model, requests, self._settings.sampling)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            found = None
        if found is None:  # outside of the except block: it holds what the failed attempt had
            free_memory()
            middle = len(batch) // 2
            first = self._drawn(model, batch[:middle], step)
            return first | self._drawn(model, batch[middle:], step)
        answers: dict[str, list[Sample]] = {key: [] for key in batch}
        for request in requests:  # of an input one by one, in order
            answers[request.key[0]] += found[request.key]
        return answers

    def _scored(self, model: Any, parses: Mapping[str, list[Parse]]) -> Mapping[str, Any]:
        """Return what the teacher says of types, if it is asked."""
        if self._types is None or not parses:
            return {}
        with answering(model):
            return self._types.score(model, parses)

    def _requests(self, key: str, step: int) -> list[PromptRequest]:
        """Return what the teacher is asked of an input."""
        return [
            PromptRequest(
                (key, k),
                self._loaded.encode(prompt),
                [derive_seed(self._settings.seed, "teacher", key, step, k)],
            )
            for k, prompt in enumerate(self._settings.prompts(key))
        ]


def _everyones(found: Mapping[str, T]) -> dict[str, T]:
    """Return what all processes found, each for its share of the inputs."""
    return dict(ranks.gathered(list(found.items())))
