"""The profile: one frozen model a section, unknown keys refused, every value bounded.

One profile serves every command; each section holds what one part of the work needs. The
descriptions are the reference text of the documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from ccrl_cli.config.base import (
    Count,
    CountOrZero,
    Names,
    NonNegative,
    Positive,
    PositiveShare,
    Section,
    Share,
    Text,
    repeated,
)
from ccrl_cli.config.comparison import Baselines, Evaluation, Report
from ccrl_cli.config.data import Data, Prompt
from ccrl_cli.config.learning import Confidence, Curriculum, Reward
from ccrl_cli.config.paths import portable_name, without_controls
from ccrl_cli.config.training import Training, Warmup

Backend = Literal["auto", "transformers", "unsloth", "vllm", "openai", "ollama", "mock"]


class Run(Section):
    """Where a run lives, and the seed all of its randomness is derived from."""

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100),
        AfterValidator(portable_name),
    ] = Field(default="default", description="Name of the run: one directory under dir.")
    dir: Annotated[Text, AfterValidator(without_controls)] = Field(
        default="runs", description="Folder of all runs, their stores and caches."
    )
    seed: CountOrZero = Field(
        default=0, description="Seed of every random choice, by derived sub-seeds."
    )


class Model(Section):
    """The model that labels the target domain and is then trained on its own labels."""

    name: Annotated[Text, AfterValidator(without_controls)] = Field(
        description="Hub identifier (org/name[@revision]), local folder, file.gguf or pypi:PACKAGE."
    )
    adapter: Annotated[str | None, AfterValidator(without_controls)] = Field(
        default=None, description="LoRA adapter to start from: a folder, or builtin:NAME."
    )
    trained_adapter: str | None = Field(
        default=None,
        description="Adapter of an earlier training on this start (warmed up or not): it labels, "
        "training goes on from it, and scores before training are its own.",
    )
    load_in_4bit: bool = Field(
        default=False, description="Load the weights as NF4; needs bitsandbytes."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto",
        description="Number format of the weights; auto: bfloat16 where the device has it.",
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        default="sdpa", description="Attention implementation of transformers."
    )


class Generation(Section):
    """Sampling of K completions for each target input."""

    backend: Backend = Field(
        default="auto",
        description="Engine; auto takes the fastest local one that runs here. openai and ollama "
        "ask a server.",
    )
    num_completions: Count = Field(default=8, description="K, completions of one input.")
    temperature: Positive = Field(default=0.8, description="Sampling temperature.")
    top_p: PositiveShare = Field(default=1.0, description="Nucleus; 1 keeps every token.")
    max_tokens: Count = Field(default=256, description="Longest completion in tokens.")
    batch_size: Count = Field(
        default=16, description="Inputs in flight; a crash loses at most these."
    )
    store: Annotated[str | None, AfterValidator(without_controls)] = Field(
        default=None, description="Completion store; unset: <run.dir>/<run.name>/completions.jsonl."
    )
    models: Names = Field(default=(), description="Models that generate; empty: model.name alone.")
    max_batch_tokens: Count | None = Field(
        default=None,
        description="Prompt and answer tokens of all samples in flight (transformers, unsloth); "
        "unset: what memory holds.",
    )
    constrained: bool = Field(
        default=False,
        description="Hold answers to the JSON format and the listed types (not unsloth).",
    )
    vllm_memory_share: PositiveShare = Field(
        default=0.9, description="Share of the GPU's memory that vLLM takes."
    )
    server_url: str | None = Field(
        default=None,
        description="Address of the server (openai, ollama); unset: port 8000, or Ollama's, here.",
    )
    server_key_variable: str | None = Field(
        default=None,
        description="Environment variable that holds the server's API key; the key is not stored.",
    )
    server_concurrency: Count = Field(
        default=16, description="Requests on their way to the server at once."
    )
    server_timeout_seconds: Positive = Field(
        default=600.0, description="Longest wait for one answer of the server."
    )
    server_retries: CountOrZero = Field(
        default=8,
        description="Further attempts after a failed request, with growing pauses: 8 wait out two "
        "to four minutes.",
    )
    reasoning_effort: Literal["none", "low", "medium", "high"] | None = Field(
        default=None, description="Sent to the server where set, for models that think."
    )
    mock_noise: Share = Field(
        default=0.3, description="Probability of a mistake at each mention (mock)."
    )
    mock_seconds: NonNegative = Field(
        default=0.0, description="Pause before each input, to rehearse a long run (mock)."
    )
    max_prompt_tokens: Count = Field(
        default=4096,
        description="Inputs with a longer prompt are left out, counted and named (local backends); "
        "the model's context, less max_tokens, is a limit too.",
    )
    ray_workers: CountOrZero = Field(
        default=0,
        description="Processes on the Ray cluster, each with the model loaded; 0: one a GPU, "
        "without GPUs one a node.",
    )
    ray_cpus_per_worker: Positive = Field(
        default=1.0, description="CPUs that each of these processes reserves."
    )

    @field_validator("server_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is no address: write http://HOST:PORT")
        if parts.username or parts.password:
            raise ValueError(
                "keys do not belong into the address, which is stored with each run: "
                "name a variable in server_key_variable"
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if twice := repeated(self.models):
            raise ValueError(f"models lists {twice!r} twice")
        return self


class Profile(Section):
    """Everything a run needs, one section a part."""

    run: Run = Field(default_factory=Run, description="Directory and seed.")
    model: Model = Field(description="The model that is adapted.")
    data: Data = Field(description="Source and target domains.")
    prompt: Prompt = Field(default_factory=Prompt, description="Prompt template.")
    generation: Generation = Field(default_factory=Generation, description="Sampling.")
    confidence: Confidence = Field(default_factory=Confidence, description="Pseudo-labels.")
    curriculum: Curriculum = Field(default_factory=Curriculum, description="Order and pacing.")
    reward: Reward = Field(default_factory=Reward, description="Reward parts.")
    warmup: Warmup = Field(default_factory=Warmup, description="Supervised warm-up.")
    training: Training = Field(default_factory=Training, description="GRPO.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="Scoring.")
    baselines: Baselines = Field(default_factory=Baselines, description="Arms.")
    report: Report = Field(default_factory=Report, description="HTML page.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup.enabled and self.warmup.method == "full" and self.model.load_in_4bit:
            raise ValueError(
                "warmup.method 'full' cannot train 4-bit weights: "
                "set model.load_in_4bit = false or warmup.method = 'lora'"
            )
        confidence = self.confidence
        fitted = confidence.calibrator != "none" or (
            confidence.metric == "combined" and not confidence.weights
        )
        if fitted and self.curriculum.rounds > 1:
            raise ValueError(
                "curriculum.rounds labels anew with other weights, which no calibrator and no "
                "logistic fit was made for: set confidence.calibrator = 'none' and a metric that "
                "needs no fit, or curriculum.rounds = 1"
            )
        return self

    def with_values(self, changes: Mapping[str, Any]) -> Profile:
        """Return this profile with some keys set, checked as a whole again.

        Args:
            changes: dotted key to value.

        Raises:
            KeyError: there is no such key.
            ValidationError: the values do not fit together.
        """
        tree = self.model_dump()
        for key, value in changes.items():
            *path, last = key.split(".")
            inner = tree
            for part in path:
                inner = inner[part]
            if last not in inner:
                raise KeyError(key)
            inner[last] = value
        return Profile.model_validate(tree)

    @property
    def run_path(self) -> Path:
        """Directory of this run."""
        return Path(self.run.dir) / self.run.name

    @property
    def store_path(self) -> Path:
        """File of the completion store."""
        named = self.generation.store
        return Path(named) if named else self.run_path / "completions.jsonl"

    @property
    def generation_models(self) -> tuple[str, ...]:
        """References of the models that generate."""
        return self.generation.models or (self.model.name,)
