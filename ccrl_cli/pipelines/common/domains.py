"""A domain of a profile: its splits, its types, and prompts for its sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.data.catalog import (
    SPLITS,
    DatasetSpec,
    Split,
    SplitReader,
    available_splits,
    without_duplicates,
)
from ccrl_cli.data.prompts import PromptTemplate, get_template, render, type_order
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.records import Example, content_id

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile

Role = Literal["source", "target"]
Prompt = tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Which sentences a command works on: a split of a domain."""

    role: Role = "target"
    split: Literal["train", "dev", "test"] = "train"

    def __str__(self) -> str:
        return self.split if self.role == "target" else f"{self.role}:{self.split}"


TRAINING = Inputs()
"""The inputs that a run trains on."""


def parse_split(text: str) -> Inputs:
    """Return the inputs that ``dev``, ``target:dev`` or ``source:dev`` names.

    Raises:
        UsageError: it names none.
    """
    role, _, split = text.rpartition(":")
    for known in get_args(Role):
        for name in SPLITS:
            if (role or "target", split) == (known, name):
                return Inputs(known, name)  # type: ignore[arg-type]
    raise UsageError(
        f"there is no split {text!r}",
        hint="choose train, dev or test, with source: before it for the source domain",
    )


@dataclass(frozen=True)
class Domain:
    """One domain and how its sentences are asked about.

    Attributes:
        role: ``source`` or ``target``.
        spec: where its sentences are.
        limits: samples at most, by split role.
        labels: type identifiers, in the order of the data set.
        names: readable names of the types.
        template: prompt template.
        shuffle_types: whether each sample sees its own order of types.
        rename_types: probability that a sample lists a type under a paraphrase.
        reader: reads its splits.
        run_seed: seed of the run, from which orders are derived.
    """

    role: Role
    spec: DatasetSpec
    limits: dict[str, int | None]
    labels: tuple[str, ...]
    names: TypeNames
    template: PromptTemplate
    shuffle_types: bool
    run_seed: int
    rename_types: float = 0.0
    reader: SplitReader = field(default_factory=SplitReader, compare=False, repr=False)

    def split(self, name: str) -> Split:
        """Return a split by role, cut to the number of samples that the profile allows."""
        spec = DatasetSpec(self.spec.source, self.spec.splits, self.labels, self.limits.get(name))
        return self.reader.load(spec, name)

    def unique_inputs(self, split: str) -> tuple[tuple[Example, ...], int]:
        """Return the inputs of a split, equal texts once, and how many were left out.

        Those of the training split are :meth:`training_inputs`.
        """
        if split == "train" and self.role == "target":
            return self.training_inputs()
        return without_duplicates(self.split(split).examples)

    def training_inputs(self, split: str = "train") -> tuple[tuple[Example, ...], int]:
        """Return the inputs that labels are made for, and how many equal texts were left out.

        Args:
            split: where they are; training on another split than the first is for the source.

        Texts of the test split are left out too, where it is another part of the data: a score on
        it is then held out. In data without such a part the score is transductive.
        """
        examples = self.split(split).examples
        kept, dropped = without_duplicates(examples, self._held_out(split))
        return (kept, dropped) if kept else without_duplicates(examples)

    def _held_out(self, split: str) -> tuple[Example, ...]:
        if self.spec.splits.get(split) == self.spec.splits.get("test"):
            return ()
        if "test" not in available_splits(self.spec):
            return ()
        whole = DatasetSpec(self.spec.source, self.spec.splits, self.labels)
        return self.reader.load(whole, "test").examples

    def prompt(
        self, example: Example, *, sample: int | None = None, special_tokens: Sequence[str] = ()
    ) -> Prompt:
        """Return the chat prompt of one sentence.

        Args:
            example: the sentence.
            sample: number k of the sample whose type order and type names are wanted; None: the
                given ones.
            special_tokens: strings that must not appear as such in the sentence.
        """
        order, names = None, self.shown_names(example, sample=sample)
        if sample is not None and self.shuffle_types:
            seed = derive_seed(self.run_seed, "type-order", example.id, sample)
            order = type_order(self.labels, seed)
        messages = render(
            self.template,
            example.text,
            self.labels,
            names,
            order,
            special_tokens=special_tokens,
        )
        return tuple(dict(message) for message in messages)

    def sample_prompts(
        self, example: Example, count: int, *, special_tokens: Sequence[str] = ()
    ) -> tuple[Prompt, ...]:
        """Return the chat prompts of a sentence's samples 0 to count - 1, see `prompt`."""
        return tuple(
            self.prompt(example, sample=k, special_tokens=special_tokens) for k in range(count)
        )

    def shown_names(self, example: Example, *, sample: int | None) -> TypeNames:
        """Return the names under which the prompt of a sentence lists the types."""
        if sample is None or not self.rename_types:
            return self.names
        seed = derive_seed(self.run_seed, "type-name", example.id, sample)
        return self.names.renamed(self.rename_types, seed)

    @cached_property
    def prompt_digest(self) -> str:
        """Digest of everything that shapes a prompt but the sentence and the labels."""
        varied = f"|rename={self.rename_types:g}" if self.rename_types else ""
        return content_id(f"{self.template.digest}|shuffle={self.shuffle_types}{varied}")

    @cached_property
    def labels_digest(self) -> str:
        """Digest of the types and their names."""
        return content_id("|".join(self.labels) + "#" + self.names.digest)


def load_domain(profile: Profile, role: Role, reader: SplitReader | None = None) -> Domain:
    """Return a domain of a profile.

    Args:
        profile: the profile.
        role: which domain.
        reader: what the command reads data with; None: the domain has one of its own.

    Raises:
        PreconditionError: the data set has no types and the profile names none.
    """
    section = profile.data.source if role == "source" else profile.data.target
    splits = {
        "train": section.train_split,
        "dev": section.dev_split,
        "test": section.test_split,
    }
    spec = DatasetSpec(section.reference, splits, section.labels)
    reader = reader or SplitReader()
    head = reader.load(
        spec, "train" if role == "target" or profile.warmup.enabled else profile.evaluation.split
    )
    if not head.labels:
        raise PreconditionError(
            f"{section.reference} has no labels, and the profile does not list the types",
            hint=f'set data.{role}.labels = ["type", ...]',
        )
    overrides = {**head.type_names, **profile.data.type_names}
    return Domain(
        role=role,
        spec=spec,
        limits={"train": section.max_train_samples, "test": section.max_test_samples},
        labels=head.labels,
        names=TypeNames.build(
            head.labels, overrides, profile.prompt.paraphrases, profile.data.type_descriptions
        ),
        template=get_template(profile.prompt.template),
        shuffle_types=profile.prompt.shuffle_types,
        run_seed=profile.run.seed,
        rename_types=profile.prompt.rename_types,
        reader=reader,
    )
