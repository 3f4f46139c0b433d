"""What is trained on: prompts, targets, replay and probe of a profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.collapse import GuardLimits
from ccrl_cli.core.placing import view_for
from ccrl_cli.core.rewards import RewardWeights, make_target
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.data.prompts import answer
from ccrl_cli.errors import CcrlError, PreconditionError
from ccrl_cli.pipelines.common.domains import Domain, load_domain
from ccrl_cli.pipelines.common.weights import load_options
from ccrl_cli.pipelines.curriculum.plan import planned_steps, replayed_prompts
from ccrl_cli.pipelines.labelling.labels import LabelSet

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import SplitReader
    from ccrl_cli.models.loading import LoadedModel
    from ccrl_cli.models.weights import Weights
    from ccrl_cli.records import Entity, Example, PseudoLabel
    from ccrl_cli.reporting import Reporter
    from ccrl_cli.trainers.base import GrpoSettings, TrainInput
    from ccrl_cli.trainers.registry import PolicySpec

PROMPT_SAMPLE = 0
"""Number of the sample whose order and names of types a training prompt shows."""

SOURCE = "source:"
"""Put before the identifiers of source inputs: a text may be in both domains."""


class InputMaker:
    """Makes training inputs of a profile's sentences.

    Args:
        profile: the profile.
        loaded: model and tokenizer.
    """

    def __init__(self, profile: Profile, loaded: LoadedModel) -> None:
        self._profile = profile
        self._loaded = loaded
        self._special = tuple(loaded.tokenizer.all_special_tokens)
        self._made: dict[str, TrainInput] = {}

    def target(self, domain: Domain, labels: LabelSet) -> dict[str, TrainInput]:
        """Return the target inputs whose prompt is short enough, by id."""
        found, counts = {}, labels.start_counts
        for key, label in labels.labels.items():
            prompt = self._prompt(domain, labels.examples[key])
            if prompt is not None:
                found[key] = replace(
                    self.labelled(domain, labels.examples[key], label, prompt),
                    entities_before=counts.get(key),
                )
        return found

    def labelled(
        self, domain: Domain, example: Example, label: PseudoLabel, prompt: str
    ) -> TrainInput:
        """Return a target input with a label."""
        from ccrl_cli.trainers.base import TrainInput

        votes = label.votes if self._profile.reward.overlap == "expected_f1" else None
        target = make_target(
            Aligner(view_for(example.without_gold(), label.entities)),
            label.entities,
            label.abstained,
            votes,
        )
        return TrainInput(
            example.id,
            prompt,
            target,
            label.confidence,
            domain.names.by_name,
            self._answer(domain, example, label.entities),
        )

    def source(self, domain: Domain, examples: Iterable[Example]) -> dict[str, TrainInput]:
        """Return labelled source inputs with their gold labels, by id."""
        from ccrl_cli.trainers.base import TrainInput

        found = {}
        for example in examples:
            prompt = self._prompt(domain, example)
            if prompt is None:
                continue
            key = SOURCE + example.id
            target = make_target(
                Aligner(view_for(example.without_gold(), example.gold_entities())),
                example.gold_entities(),
            )
            text = self._answer(domain, example, example.gold_entities())
            found[key] = TrainInput(key, prompt, target, 1.0, domain.names.by_name, text)
        return found

    def _answer(self, domain: Domain, example: Example, entities: Iterable[Entity]) -> str:
        """Return a label as the policy is asked to write it: by the names that its prompt lists."""
        names = domain.shown_names(example, sample=PROMPT_SAMPLE)
        return answer(entities, names, special_tokens=self._special)

    def _prompt(self, domain: Domain, example: Example) -> str | None:
        """Return the prompt of a sentence, or None if it is too long."""
        messages = domain.prompt(example, sample=PROMPT_SAMPLE, special_tokens=self._special)
        prompt = self._loaded.render([dict(message) for message in messages])
        limit = self._profile.training.max_prompt_tokens
        return prompt if len(self._loaded.encode(prompt)) <= limit else None


def source_inputs(
    profile: Profile,
    maker: InputMaker,
    num_replayed: int,
    reporter: Reporter,
    data: SplitReader | None = None,
) -> tuple[dict[str, TrainInput], tuple[TrainInput, ...]]:
    """Return what is replayed of the labelled source domain, and its fixed probe.

    Both are of the split ``training.replay_split``. The probe holds sentences with at least one
    entity, and they are not replayed.

    Args:
        profile: the profile.
        maker: makes inputs.
        num_replayed: prompts that the whole training replays.
        reporter: told when the probe has to do without the source.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        PreconditionError: replay was asked for, and there is no labelled source sentence.
    """
    wanted = profile.training.probe_source_size
    if not (num_replayed or wanted):
        return {}, ()
    try:
        domain = load_domain(profile, "source", data)
        split = profile.training.replay_split
        examples = [e for e in domain.training_inputs(split)[0] if e.gold is not None]
    except CcrlError as error:
        if num_replayed:
            raise
        reporter.warn(f"the source is not probed while training: {error.message}")
        return {}, ()
    if num_replayed and not examples:
        raise PreconditionError(
            f"training.replay_share asks for labelled sentences, and "
            f"{profile.data.source.reference} has none",
            hint="name a labelled data set in data.source, or --set training.replay_share=0",
        )
    rng = np.random.default_rng(derive_seed(profile.run.seed, "source-inputs"))
    shuffled = [examples[i] for i in rng.permutation(len(examples))]
    probed = [e for e in shuffled if e.gold_entities()][:wanted]
    held = {example.id for example in probed}
    rest = [e for e in shuffled if e.id not in held] or shuffled
    replay = maker.source(domain, rest[:num_replayed])
    if num_replayed and not replay:
        raise PreconditionError(
            "every labelled source sentence exceeds training.max_prompt_tokens",
            hint="raise training.max_prompt_tokens, or --set training.replay_share=0",
        )
    return replay, tuple(maker.source(domain, probed).values())


def reward_weights(profile: Profile) -> RewardWeights:
    """Return the weights of the reward parts."""
    reward = profile.reward
    limit = profile.training.max_completion_tokens
    return RewardWeights(
        overlap=reward.overlap,
        overlap_weight=reward.overlap_weight,
        format_weight=reward.format_weight,
        length_weight=reward.length_weight,
        length_soft_tokens=max(1, limit // 2),
        length_limit_tokens=limit,
    )


def grpo_settings(profile: Profile, num_inputs: int) -> GrpoSettings:
    """Return the options of GRPO from the profile, by name."""
    from ccrl_cli.trainers.base import GrpoSettings

    section = profile.training
    own: dict[str, Any] = {
        "num_steps": planned_steps(profile, num_inputs),
        "seed": derive_seed(profile.run.seed, "trainer") % 2**32,
        "use_weights": section.confidence_weight == "advantage",
        "replayed": replayed_prompts(profile),
        "guard": guard_limits(profile),
    }
    rest = {f.name: getattr(section, f.name) for f in fields(GrpoSettings) if f.name not in own}
    return GrpoSettings(**own, **rest)


def guard_limits(profile: Profile) -> GuardLimits | None:
    """Return the limits of the collapse guard; None if it is off."""
    section = profile.training.guard
    if not section.enabled:
        return None
    values = section.model_dump()
    window = values.pop("window_steps")
    del values["enabled"]
    return GuardLimits(window=window, **values)


def policy_spec(profile: Profile, start: Weights) -> PolicySpec:
    """Return the policy that is trained."""
    from ccrl_cli.trainers.registry import PolicySpec

    section = profile.training
    return PolicySpec(
        weights=start,
        options=load_options(profile),
        rank=section.lora_rank,
        alpha=section.lora_alpha,
        dropout=section.lora_dropout,
        modules=section.lora_target_modules,
        adapter_seed=derive_seed(profile.run.seed, "adapter") % 2**32,
        max_tokens=section.max_prompt_tokens + section.max_completion_tokens,
        gradient_checkpointing=section.gradient_checkpointing,
    )


def sampling_rates(profile: Profile, confidence: Mapping[str, float]) -> dict[str, float] | None:
    """Return how often inputs are drawn, relative to one another; None: all alike."""
    return dict(confidence) if profile.training.confidence_weight == "sampling" else None
