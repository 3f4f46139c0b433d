"""Rollouts of the policy, and what their answers earn."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.rewards import score
from ccrl_cli.core.seeds import derive_seed, uniform_stream
from ccrl_cli.models.decoding import PromptRequest, Sample, Sampling, decode_batch
from ccrl_cli.models.loading import LoadedModel
from ccrl_cli.models.merging import merged_adapter
from ccrl_cli.trainers.base import GrpoSettings, TrainTask

PARTS = ("overlap", "format", "length")
"""Parts of the reward, each logged by name."""


class RolloutStatistics:
    """Means over the rollouts since the last record."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, **values: float) -> None:
        """Add one observation of each value."""
        for name, value in values.items():
            self._sums[name] += value
            self._counts[name] += 1

    def take(self) -> dict[str, float]:
        """Return the means and start anew."""
        means = {name: self._sums[name] / count for name, count in self._counts.items()}
        self._sums.clear()
        self._counts.clear()
        return means


class Rollouts:
    """Samples G answers of each prompt from the policy, each from a seed of its own.

    Called by TRL as ``rollout_func(prompts, trainer)``.
    """

    def __init__(self, loaded: LoadedModel, settings: GrpoSettings) -> None:
        self._loaded = loaded
        self._settings = settings
        self.seconds = 0.0
        self.tokens = 0

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """Return prompt ids, completion ids and log-probabilities for each row."""
        started = time.perf_counter()
        model = trainer.accelerator.unwrap_model(trainer.model)
        step = trainer.state.global_step
        group = self._settings.num_generations
        requests = []
        for first in range(0, len(prompts), group):
            seeds = [
                derive_seed(self._settings.seed, "rollout", step, first + g)
                for g in range(len(prompts[first : first + group]))
            ]
            requests.append(PromptRequest(first, self._loaded.encode(prompts[first]), seeds))
        samples = self._decode(model, requests)
        rows: dict[str, list[Any]] = {"prompt_ids": [], "completion_ids": [], "logprobs": []}
        for request in requests:
            for sample in samples[request.key]:
                rows["prompt_ids"].append(list(request.token_ids))
                rows["completion_ids"].append(sample.token_ids)
                rows["logprobs"].append(sample.logprobs)
                self.tokens += len(sample.token_ids)
        self.seconds += time.perf_counter() - started
        return rows

    def _decode(self, model: Any, requests: Sequence[PromptRequest]) -> dict[Any, list[Sample]]:
        settings = self._settings
        sampling = Sampling(
            settings.temperature, settings.max_completion_tokens, settings.top_p, settings.top_k
        )
        was_training = model.training
        model.eval()
        try:
            with merged_adapter(model):
                return dict(
                    decode_batch(
                        model,
                        requests,
                        sampling,
                        end_ids=self._loaded.end_ids,
                        pad_id=self._loaded.pad_id,
                    )
                )
        finally:
            model.train(was_training)


class Rewards:
    """Scores answers against pseudo-labels, part by part, and keeps statistics of them."""

    def __init__(self, task: TrainTask, settings: GrpoSettings, end_ids: Sequence[int]) -> None:
        self._task = task
        self._end_ids = frozenset(end_ids)
        self._group = settings.num_generations
        self.statistics = RolloutStatistics()
        self.groups: list[tuple[str, float]] = []
        self.seconds = 0.0
        self._parts: list[dict[str, float]] = []

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
            return [parts["overlap"] for parts in self._parts]

        def well_formed(**_: Any) -> list[float]:
            return [parts["format"] for parts in self._parts]

        def length(**_: Any) -> list[float]:
            return [parts["length"] for parts in self._parts]

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
        self._parts = []
        totals = []
        noise = self._noise(step, len(completions))
        rows = zip(completions, completion_ids, input_ids, strict=True)
        for place, (text, tokens, input_id) in enumerate(rows):
            parse = parse_completion(text, self._task.types)
            target = self._task.inputs[input_id].target
            parts = score(parse, target, self._task.reward, num_tokens=len(tokens))
            if noise is not None:
                weight = self._task.reward.overlap_weight
                total = parts["total"] + weight * (noise[place] - parts["overlap"])
                parts = {**parts, "overlap": noise[place], "total": total}
            self._parts.append(parts)
            totals.append(parts["total"])
            self.statistics.add(
                reward=parts["total"],
                reward_overlap=parts["overlap"],
                reward_format=parts["format"],
                reward_length=parts["length"],
                entities=float(len(parse.entities)),
                empty_share=float(parse.outcome != "invalid" and not parse.entities),
                invalid_share=float(parse.outcome == "invalid"),
                valid_share=float(parse.outcome == "valid"),
                truncated_share=float(not tokens or tokens[-1] not in self._end_ids),
                answer_tokens=float(len(tokens)),
            )
        for first in range(0, len(totals), self._group):
            group = totals[first : first + self._group]
            mean = sum(group) / len(group)
            spread = (sum((value - mean) ** 2 for value in group) / len(group)) ** 0.5
            self.groups.append((input_ids[first], spread))
            self.statistics.add(zero_spread_share=float(spread < 1e-9))
        self.seconds += time.perf_counter() - started

    def _noise(self, step: int, count: int) -> list[float] | None:
        """Return random overlaps in [0, 1) for the rows of a step; None: answers are judged."""
        if self._task.noise_seed is None:
            return None
        seed = derive_seed(self._task.noise_seed, "noise", step)
        return [float(value) for value in uniform_stream(seed, count)]
