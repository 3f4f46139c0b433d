"""Rollouts of the policy, and what their answers earn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.rewards import entity_f1, score
from ccrl_cli.core.seeds import derive_seed, uniform_stream
from ccrl_cli.core.telemetry import RolloutRow
from ccrl_cli.models.decoding import decode_batch
from ccrl_cli.models.loading import LoadedModel
from ccrl_cli.models.merging import answering
from ccrl_cli.models.sampling import PromptRequest, Sample, Sampling
from ccrl_cli.trainers import ranks
from ccrl_cli.trainers.base import GrpoSettings, TrainInput, TrainTask

PARTS = ("overlap", "format", "length")
"""Parts of the reward, each logged by name."""

Decoder = Callable[[Any, Sequence[PromptRequest], Sampling], dict[Any, list[Sample]]]
"""Answers by request key, of a model in eval mode."""


def merged_decoder(loaded: LoadedModel) -> Decoder:
    """Return a decoder with the adapter folded into the weights.

    Weights are changed in place and put back, so steps that a GPU recorded once are replayed in
    every later step of the training.
    """

    def decode(
        model: Any, requests: Sequence[PromptRequest], sampling: Sampling
    ) -> dict[Any, list[Sample]]:
        with answering(model):
            return dict(
                decode_batch(
                    model, requests, sampling, end_ids=loaded.end_ids, pad_id=loaded.pad_id
                )
            )

    return decode


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer of a group: a sample of the policy, or the label itself, which nobody drew."""

    sample: Sample
    off_policy: bool = False


class Rollouts:
    """Samples G answers of each prompt from the policy, each from a seed of its own.

    Called by TRL as ``rollout_func(prompts, trainer)``, after `input_ids` has been set to the input
    of each row: two inputs may render alike. The seeds belong to a row of the whole step, whichever
    process it falls to. The last ``label_answers`` of each group are the label:
    their ratio to the policy is taken as 1, as on-policy (LUFFY, 2504.14945, without its shaping).

    Args:
        loaded: model and tokenizer.
        settings: options of GRPO.
        decode: how answers are drawn.
        task: has the label of each prompt.
    """

    def __init__(
        self, loaded: LoadedModel, settings: GrpoSettings, decode: Decoder, task: TrainTask
    ) -> None:
        self._loaded = loaded
        self._settings = settings
        self._decode = decode
        self._task = task
        self.input_ids: Sequence[str] = ()
        self.seconds = 0.0
        self.tokens = 0
        self.drawn: list[Rollout] = []

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """Return prompt ids, completion ids and log-probabilities for each row."""
        started = time.perf_counter()
        settings = self._settings
        model = trainer.accelerator.unwrap_model(trainer.model)
        step = trainer.state.global_step
        before = ranks.rank() * len(prompts)
        requests, labels = [], []
        for first in range(0, len(prompts), settings.num_generations):
            group = range(first, min(first + settings.num_generations, len(prompts)))
            labels.append(self._label_answers(self._item(first, prompts[first]), len(group)))
            sampled = group[: len(group) - len(labels[-1])]
            seeds = [derive_seed(settings.seed, "rollout", step, before + row) for row in sampled]
            requests.append(PromptRequest(first, self._loaded.encode(prompts[first]), seeds))
        sampling = Sampling(
            settings.temperature, settings.max_completion_tokens, settings.top_p, settings.top_k
        )
        samples = self._decode(model, requests, sampling)
        rows: dict[str, list[Any]] = {"prompt_ids": [], "completion_ids": [], "logprobs": []}
        self.drawn = []
        for request, given in zip(requests, labels, strict=True):
            own = [Rollout(sample) for sample in samples[request.key]]
            self.tokens += sum(len(rollout.sample.token_ids) for rollout in own)
            for rollout in own + given:
                rows["prompt_ids"].append(list(request.token_ids))
                rows["completion_ids"].append(rollout.sample.token_ids)
                rows["logprobs"].append(rollout.sample.logprobs)
                self.drawn.append(rollout)
        self.seconds += time.perf_counter() - started
        return rows

    def _item(self, row: int, prompt: str) -> TrainInput:
        """Return the input of a row."""
        item, _ = self._task.find(self.input_ids[row])
        assert item.prompt == prompt, "the rows of a step are in another order than its prompts"
        return item

    def _label_answers(self, item: TrainInput, size: int) -> list[Rollout]:
        """Return the label's answer as often as it stands in a group; never if it is too long."""
        count = min(self._settings.label_answers, size - 1)
        if not count:
            return []
        tokens = self._loaded.encode_answer(item.answer)
        if len(tokens) > self._settings.max_completion_tokens:
            return []
        return [Rollout(Sample(tokens, [0.0] * len(tokens), "stop"), off_policy=True)] * count


def score_answer(
    item: TrainInput,
    text: str,
    tokens: Sequence[int],
    task: TrainTask,
    ends: Iterable[int],
    *,
    off_policy: bool = False,
) -> RolloutRow:
    """Score one answer against the label of its input."""
    parse = parse_completion(text, item.types)
    parts = score(parse, item.target, task.reward, num_tokens=len(tokens))
    return RolloutRow(
        input_id=item.input_id,
        replayed=item.input_id not in task.inputs,
        total=parts["total"],
        overlap=parts["overlap"],
        form=parts["format"],
        length=parts["length"],
        f1=entity_f1(parse, item.target),
        entities=len(parse.entities),
        label_entities=item.target.size,
        outcome=parse.outcome,
        tokens=len(tokens),
        truncated=not tokens or tokens[-1] not in ends,
        off_policy=off_policy,
        entities_before=item.entities_before,
    )


class Rewards:
    """Scores answers against labels, part by part, and keeps a row of each rollout."""

    def __init__(self, task: TrainTask, rollouts: Rollouts) -> None:
        self._task = task
        self._rollouts = rollouts
        self._end_ids = frozenset(rollouts._loaded.end_ids)
        self.rows: list[RolloutRow] = []
        self.seconds = 0.0
        self._last: list[RolloutRow] = []

    @property
    def totals(self) -> list[float]:
        """The rewards of the rollouts that were scored last."""
        return [row.total for row in self._last]

    def functions(self) -> list[Callable[..., list[float]]]:
        """Return one reward function a part, in the order of `PARTS`; the first one scores."""

        def overlap(
            completions: list[str],
            completion_ids: list[list[int]],
            input_id: list[str],
            trainer_state: Any = None,
            **_: Any,
        ) -> list[float]:
            step = trainer_state.global_step if trainer_state is not None else 0
            self._score(completions, completion_ids, input_id, step)
            return [row.overlap for row in self._last]

        def well_formed(**_: Any) -> list[float]:
            return [row.form for row in self._last]

        def length(**_: Any) -> list[float]:
            return [row.length for row in self._last]

        well_formed.__name__ = "format"
        return [overlap, well_formed, length]

    def weights(self) -> list[float]:
        """Return the weights of the parts, in the order of `PARTS`."""
        reward = self._task.reward
        return [reward.overlap_weight, reward.format_weight, reward.length_weight]

    def _score(
        self,
        completions: list[str],
        completion_ids: list[list[int]],
        input_ids: list[str],
        step: int = 0,
    ) -> None:
        started = time.perf_counter()
        drawn = self._rollouts.drawn
        self._last = [
            score_answer(
                self._task.at(key, step),
                text,
                tokens,
                self._task,
                self._end_ids,
                off_policy=rollout.off_policy,
            )
            for text, tokens, key, rollout in zip(
                completions, completion_ids, input_ids, drawn, strict=True
            )
        ]
        if self._task.noise_seed is not None:
            self._last = self._with_noise(self._last, step)
        self.rows += self._last
        self.seconds += time.perf_counter() - started

    def _with_noise(self, rows: list[RolloutRow], step: int) -> list[RolloutRow]:
        """Return rows whose overlap is uniform noise in [0, 1), other at each step and process."""
        assert self._task.noise_seed is not None
        seed = derive_seed(self._task.noise_seed, "noise", step, ranks.rank())
        weight = self._task.reward.overlap_weight
        return [
            replace(row, overlap=float(value), total=row.total + weight * (value - row.overlap))
            for row, value in zip(rows, uniform_stream(seed, len(rows)).tolist(), strict=True)
        ]
