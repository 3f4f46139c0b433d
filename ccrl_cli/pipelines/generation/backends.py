"""From a profile to the generator of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ccrl_cli.errors import PreconditionError
from ccrl_cli.generators.base import Generator, SamplingSettings
from ccrl_cli.generators.registry import SERVERS, GeneratorRecipe, choose_backend
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.common.domains import Domain
from ccrl_cli.pipelines.common.weights import load_options, starting_weights
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
) -> Weights | None:
    """Have a model on disk, so that its revision is known; None where a backend has its own.

    Raises:
        PreconditionError: a server is asked for a model with local weights upon it.
    """
    if backend == "mock":
        return None
    if backend not in SERVERS:
        return starting_weights(profile, reference, reporter)
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


def generator_recipe(
    profile: Profile,
    backend: str,
    reference: str,
    start: Weights | None,
    domain: Domain,
    examples: Sequence[Example],
    settings: SamplingSettings | None = None,
) -> GeneratorRecipe:
    """Return how to make the generator of one model, here or in another process.

    Args:
        profile: the profile.
        backend: name of the backend.
        reference: the model.
        start: its weights; None for servers and the mock backend.
        domain: the domain whose inputs are labelled.
        examples: the owed inputs; the mock backend reads their gold.
        settings: how it decodes; None: as the profile generates.
    """
    settings = settings or _settings(profile, domain)
    if backend == "mock":
        return _mock(profile, domain, examples)
    if backend in SERVERS:
        return GeneratorRecipe(backend, (_server(profile, reference), settings))
    assert start is not None
    options = {"memory_share": profile.generation.vllm_memory_share} if backend == "vllm" else {}
    return GeneratorRecipe(backend, (start, settings, load_options(profile)), options)


def make_generator(recipe: GeneratorRecipe, profile: Profile, ray: str | None) -> Generator:
    """Return the generator of a recipe, loaded and ready: in this process, or on Ray.

    Args:
        recipe: see `generator_recipe`.
        profile: the profile.
        ray: address of a Ray cluster, ``auto``, or None for this process.
    """
    if ray is None:
        return recipe.build()
    from ccrl_cli.generators.ray import RayGenerator, RaySettings

    generation = profile.generation
    settings = RaySettings(
        address=ray,
        workers=generation.ray_workers,
        cpus_per_worker=generation.ray_cpus_per_worker,
        gpus_per_worker=0.0 if recipe.backend in {*SERVERS, "mock"} else None,
        batch_size=generation.batch_size,
    )
    return RayGenerator(recipe, settings)


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


def _mock(profile: Profile, domain: Domain, examples: Sequence[Example]) -> GeneratorRecipe:
    if any(example.gold is None for example in examples):
        raise PreconditionError(
            "the mock backend corrupts gold labels, and this data set has none",
            hint="choose --backend transformers, or a labelled data set",
        )
    shown = {
        example.id: [Entity(e.text, domain.names.name(e.type)) for e in example.gold_entities()]
        for example in examples
    }
    names = [domain.names.name(label) for label in domain.labels]
    options = {
        "noise": profile.generation.mock_noise,
        "seconds_per_input": profile.generation.mock_seconds,
    }
    return GeneratorRecipe("mock", (shown, names), options)
