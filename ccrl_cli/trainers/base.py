"""What every trainer is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ccrl_cli.core.collapse import Alarm, GuardLimits
from ccrl_cli.core.curriculum import CurriculumSampler, Schedule
from ccrl_cli.core.entity_curriculum import EntityCurriculum
from ccrl_cli.core.rewards import RewardWeights, Target


@dataclass(frozen=True, slots=True)
class TrainInput:
    """One training input.

    Attributes:
        input_id: identifier of the input.
        prompt: rendered chat prompt.
        target: pseudo-label to be rewarded against; of a source input, its gold label.
        weight: factor on the advantages of this input's rollouts.
        types: prompt name -> type identifier, to parse answers with.
        answer: the label as the policy is asked to write it.
        entities_before: different mentions in an answer when labels were made, in the mean over
            the completions; None where that is unknown.
    """

    input_id: str
    prompt: str
    target: Target
    weight: float = 1.0
    types: Mapping[str, str] = field(default_factory=dict)
    answer: str = ""
    entities_before: float | None = None


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    """Every option of GRPO that moves numbers; none is left to a library's default.

    The fields are those of the profile's ``[training]`` section, which documents them, plus:

    Attributes:
        num_steps: optimiser steps of the run.
        seed: seed of rollouts, probe and libraries.
        use_weights: advantages are scaled by the weight of their input.
        replayed: prompts of each step that are labelled source inputs.
        guard: limits of the collapse guard; None: off.
    """

    num_steps: int
    seed: int
    prompts_per_step: int
    num_generations: int
    micro_batch_size: int
    learning_rate: float
    lr_scheduler: str
    lr_warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    optimizer: str
    beta: float
    epsilon: float
    epsilon_high: float
    loss_type: str
    scale_rewards: str
    num_iterations: int
    temperature: float
    top_p: float
    top_k: int
    max_completion_tokens: int
    mask_truncated_completions: bool
    multi_objective_aggregation: str
    gradient_checkpointing: bool
    save_every_steps: int
    keep_checkpoints: int
    probe_size: int
    probe_every_steps: int
    label_answers: int = 0
    keep: str = "last"
    average_last: float = 0.0
    sanity_check: bool = True
    use_weights: bool = False
    replayed: int = 0
    guard: GuardLimits | None = None

    @property
    def saving_steps(self) -> int:
        """Steps between two checkpoints, rounded up to whole sets of rollouts.

        A checkpoint inside one would have to hold the rollouts too: a resume draws them anew.
        """
        return -(-self.save_every_steps // self.num_iterations) * self.num_iterations


@dataclass(frozen=True, slots=True)
class Start:
    """The starting policy, where a training goes on from weights that were trained before.

    Attributes:
        adapter: its adapter on the same base, in PEFT format; None: the base alone.
    """

    adapter: Path | None


@dataclass(frozen=True, slots=True)
class GrowingTargets:
    """Targets that grow with training: more mentions of each label open step by step.

    Attributes:
        curriculum: what is open at a generation step.
        num_iterations: optimiser steps on one set of rollouts.
    """

    curriculum: EntityCurriculum
    num_iterations: int = 1

    def at(self, item: TrainInput, step: int) -> TrainInput:
        """Return an input with its target after `step` optimiser steps."""
        target = self.curriculum.target(item.input_id, step // self.num_iterations)
        return replace(item, target=target)

    def weight(self, input_id: str, step: int) -> float:
        """Return the factor on its advantages then: 0 where nothing is known of it yet."""
        return self.curriculum.weight(input_id, step // self.num_iterations)


@dataclass(frozen=True, slots=True)
class TrainTask:
    """What is trained on.

    Attributes:
        inputs: target inputs by id; those that the sampler does not know are never trained on.
        reward: weights of the reward parts.
        probe: fixed batch of target inputs on which KL and reward are measured.
        replay: labelled source inputs by id.
        source_probe: fixed batch of labelled source inputs on which retention is measured.
        growing: targets by step; None: those of the inputs, from the first step.
        start: what distances are measured from; None: the weights that the training begins with.
        noise_seed: a control: the overlap is replaced by uniform noise in [0, 1) from this seed.
    """

    inputs: Mapping[str, TrainInput]
    reward: RewardWeights
    probe: tuple[TrainInput, ...] = ()
    replay: Mapping[str, TrainInput] = field(default_factory=dict)
    source_probe: tuple[TrainInput, ...] = ()
    growing: GrowingTargets | None = None
    start: Start | None = None
    noise_seed: int | None = None

    def schedule(self, sampler: CurriculumSampler) -> Schedule:
        """Return how many units are open when: mentions where targets grow, else inputs."""
        return self.growing.curriculum.schedule if self.growing else sampler.schedule

    def at(self, input_id: str, step: int) -> TrainInput:
        """Return an input with the target that it has after `step` optimiser steps."""
        item, replayed = self.find(input_id)
        return item if replayed or self.growing is None else self.growing.at(item, step)

    def find(self, input_id: str) -> tuple[TrainInput, bool]:
        """Return an input, and whether it is a labelled source input."""
        own = self.inputs.get(input_id)
        return (own, False) if own is not None else (self.replay[input_id], True)


@dataclass(frozen=True, slots=True)
class TrainHooks:
    """Where a trainer's records go.

    Attributes:
        on_step: called with the record of each optimiser step.
        on_resume: called with the step that training goes on from, before the first new step.
        say: called with what the user should know.
    """

    on_step: Callable[[dict[str, Any]], None]
    on_resume: Callable[[int], None] = field(default=lambda _step: None)
    say: Callable[[str], None] = field(default=lambda _message: None)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training did.

    Attributes:
        steps: optimiser steps in all.
        resumed_from: the step it resumed from.
        seconds: wall seconds by part.
        kept_step: step whose weights the model holds now; 0 is the start.
        alarm: the rule of the collapse guard that ended it, if one did.
    """

    steps: int
    resumed_from: int
    seconds: Mapping[str, float]
    kept_step: int = 0
    alarm: Alarm | None = None
