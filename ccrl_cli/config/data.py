"""Profile sections of the data: the two domains, their types in words, and the prompt."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ccrl_cli.config.base import Count, Section, Share, Text, repeated
from ccrl_cli.config.paths import without_controls


class DataSet(Section):
    """One data set: a named one or files, never both."""

    name: str | None = Field(default=None, description="sample:NAME or hub:ID[:config][@revision].")
    path: Annotated[str | None, AfterValidator(without_controls)] = Field(
        default=None, description="File or folder (.jsonl .conll .txt .csv .parquet, gzip too)."
    )
    train_split: Text = Field(
        default="train", description="Split that is generated for and trained on."
    )
    dev_split: Text = Field(default="dev", description="Split for choices and calibration.")
    test_split: Text = Field(default="test", description="Split that is scored.")
    labels: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        default=None, description="Type identifiers; unset: those of the data set."
    )
    max_train_samples: Count | None = Field(
        default=None, description="Use the first inputs of the training split alone."
    )
    max_test_samples: Count | None = Field(
        default=None, description="Use the first inputs of the test split alone."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.name is None) == (self.path is None):
            state = "both are set" if self.name else "neither is set"
            raise ValueError(f"give either name or path ({state})")
        if self.name is not None:
            kind, _, rest = self.name.partition(":")
            if kind not in ("sample", "hub") or not rest:
                raise ValueError(
                    f"name {self.name!r} is neither sample:NAME nor hub:ID (files go into path)"
                )
        if self.labels is not None and (twice := repeated(self.labels)):
            raise ValueError(f"labels lists {twice!r} twice")
        return self

    @property
    def reference(self) -> str:
        """The data set as one string: its name, or its path."""
        return self.name or self.path or ""


class Data(Section):
    """The labelled source domain, the unlabelled target domain, and readable type names."""

    source: DataSet = Field(description="Labelled domain: warm-up, and what training must retain.")
    target: DataSet = Field(description="Domain to adapt to; its gold tags serve evaluation alone.")
    type_names: dict[Text, Text] = Field(
        default_factory=dict,
        description="Type identifier -> name in prompts; reversible.",
    )
    type_descriptions: dict[Text, Text] = Field(
        default_factory=dict,
        description="Type identifier -> what it covers, in one line: shown by the prompt template "
        "instruct and by type_question = question.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        owners: dict[str, str] = {}
        for identifier, name in self.type_names.items():
            other = owners.setdefault(" ".join(name.casefold().split()), identifier)
            if other != identifier:
                raise ValueError(
                    f"type_names gives {other!r} and {identifier!r} the same name {name!r}"
                )
        for domain in (self.source, self.target):
            shown: dict[str, str] = {}
            for label in domain.labels or ():
                name = self.type_names.get(label, label)
                other = shown.setdefault(" ".join(name.casefold().split()), label)
                if other != label:
                    raise ValueError(
                        f"the types {other!r} and {label!r} of {domain.reference} have one name "
                        f"in prompts: {name!r}"
                    )
        return self


class Prompt(Section):
    """How a sentence is shown to the model."""

    template: Literal["compact", "instruct"] = Field(
        default="instruct",
        description="compact for warmed-up small models, instruct for chat models.",
    )
    shuffle_types: bool = Field(
        default=True,
        description="Shuffle the type list for each of the K samples (by input and k).",
    )
    rename_types: Share = Field(
        default=0.0,
        description="Probability that a type is listed under one of its paraphrases, drawn for "
        "each of the K samples (by input and k).",
    )
    paraphrases: dict[Text, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Type identifier -> other names for it; answers may use any of them.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rename_types and not self.paraphrases:
            raise ValueError("rename_types needs names to choose from: fill prompt.paraphrases")
        return self
