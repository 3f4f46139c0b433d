"""From a profile to the generator of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ccrl_cli.errors import PreconditionError
from ccrl_cli.generators.base import Generator, SamplingSettings
from ccrl_cli.generators.registry import SERVERS, backend_class, choose_backend
from ccrl_cli.pipelines.domains import Domain
from ccrl_cli.pipelines.start import Start, starting_policy
from ccrl_cli.records import Entity, Example

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter


def pick_backend(profile: Profile) -> tuple[str, str]:
    """Return the backend that generates for a profile, and why."""
    generation = profile.generation
    return choose_backend(
        generation.backend,
        load_in_4bit=profile.model.load_in_4bit,
        constrained=generation.constrained,
    )


def prepare_model(
    profile: Profile, backend: str, reference: str, reporter: Reporter
) -> Start | None:
    """Have a model on disk, so that its revision is known; None where a backend has its own.

    Raises:
        PreconditionError: a server is asked for a model with local weights upon it.
    """
    if backend == "mock":
        return None
    if backend not in SERVERS:
        return starting_policy(profile, reference, reporter)
    local = "an adapter" if profile.model.adapter else ""
    local = "a warm-up" if profile.warmup.enabled else local
    if local and reference == profile.model.name:
        raise PreconditionError(
            f"the profile starts {reference} from {local}, which the server does not have",
            hint="name what the server serves with --model, or choose a local backend",
        )
    return None


def sampling_identity(profile: Profile, backend: str) -> dict[str, Any]:
    """Return the sampling settings that a stored pair must agree with to count as done."""
    generation = profile.generation
    identity: dict[str, Any] = {
        "k": generation.num_completions,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "max_tokens": generation.max_tokens,
        "seed": profile.run.seed,
    }
    if generation.constrained:
        identity["constrained"] = True
    if backend in SERVERS and generation.reasoning_effort:
        identity["reasoning_effort"] = generation.reasoning_effort
    if backend == "mock":
        identity["noise"] = generation.mock_noise
    return identity


def make_generator(
    profile: Profile,
    backend: str,
    reference: str,
    start: Start | None,
    domain: Domain,
    examples: Sequence[Example],
) -> Generator:
    """Return the generator of one model, loaded and ready.

    Args:
        profile: the profile.
        backend: name of the backend.
        reference: the model.
        start: its weights; None for servers and the mock backend.
        domain: the domain whose inputs are labelled.
        examples: the owed inputs; the mock backend reads their gold.
    """
    maker = backend_class(backend)
    generator: Generator
    if backend == "mock":
        generator = _mock(profile, maker, domain, examples)
    elif backend in SERVERS:
        generator = maker(_server(profile, reference), _settings(profile, domain))
    else:
        assert start is not None
        extra = {"memory_share": profile.generation.vllm_memory_share} if backend == "vllm" else {}
        generator = maker(
            start.folder,
            _settings(profile, domain),
            adapter=start.adapter,
            dtype=profile.model.dtype,
            load_in_4bit=profile.model.load_in_4bit,
            attention=profile.model.attention,
            **extra,
        )
    return generator


def _settings(profile: Profile, domain: Domain) -> SamplingSettings:
    generation = profile.generation
    names = [domain.names.name(label) for label in domain.labels]
    return SamplingSettings(
        temperature=generation.temperature,
        top_p=generation.top_p,
        max_tokens=generation.max_tokens,
        batch_size=generation.batch_size,
        max_batch_tokens=generation.max_batch_tokens,
        answer_types=tuple(names) if generation.constrained else None,
    )


def _server(profile: Profile, reference: str) -> Any:
    from ccrl_cli.generators.http import Patience
    from ccrl_cli.generators.openai_compatible import Server

    generation = profile.generation
    return Server(
        model=reference,
        url=generation.server_url,
        key_variable=generation.server_key_variable,
        concurrency=generation.server_concurrency,
        reasoning_effort=generation.reasoning_effort,
        patience=Patience(generation.server_timeout_seconds, generation.server_retries),
    )


def _mock(profile: Profile, maker: Any, domain: Domain, examples: Sequence[Example]) -> Generator:
    if any(example.gold is None for example in examples):
        raise PreconditionError(
            "the mock backend corrupts gold labels, and this data set has none",
            hint="choose --backend transformers, or a labelled data set",
        )
    shown = {
        example.id: [Entity(e.text, domain.names.name(e.type)) for e in example.gold_entities()]
        for example in examples
    }
    mock: Generator = maker(
        shown,
        [domain.names.name(label) for label in domain.labels],
        noise=profile.generation.mock_noise,
    )
    return mock
