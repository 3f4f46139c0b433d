"""Weights that answer, in memory when something is first asked of them, for all that asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from ccrl_cli.generators.base import Generator, SamplingSettings
from ccrl_cli.generators.registry import choose_backend
from ccrl_cli.models.context import Messages, PromptMeter
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.common.domains import Domain
from ccrl_cli.pipelines.common.weights import load_options
from ccrl_cli.pipelines.generation.backends import generator_recipe
from ccrl_cli.pipelines.generation.type_scores import TypeAsker

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.records import Example

PLAIN = "transformers"
"""The backend whose model answers and is asked for types without being loaded twice."""


class Answerer:
    """One policy: it answers by the profile's backend, and is asked for types.

    Types are asked of the weights themselves, by transformers, as for labels: whatever backend
    wrote the answers. A server's weights are not here, so its model is asked for answers alone.

    Args:
        profile: says how to load and which backend answers.
        weights: what answers; None: what the server serves.
    """

    def __init__(self, profile: Profile, weights: Weights | None) -> None:
        self._profile = profile
        self.weights = weights
        self._loaded: Any = None

    @contextmanager
    def generator(
        self, settings: SamplingSettings, domain: Domain, examples: Mapping[str, Example]
    ) -> Iterator[Generator]:
        """Give a generator, ready to answer.

        Args:
            settings: how it decodes.
            domain: whose sentences are answered.
            examples: the sentences.

        Raises:
            UsageError: the backend cannot hold answers to the types that are asked for.
        """
        backend, _ = choose_backend(
            self._profile.evaluation.backend, constrained=settings.answer_types is not None
        )
        if backend == PLAIN:
            from ccrl_cli.generators.transformers import TransformersGenerator

            generator: Any = TransformersGenerator.around(self._model(), settings)
            yield generator
            return
        self.close()  # one model in memory at a time
        recipe = generator_recipe(
            self._profile,
            backend,
            self._profile.model.name,
            self.weights,
            domain,
            list(examples.values()),
            settings,
        )
        with closing(recipe.build()) as built:
            yield built

    def asker(self, domain: Domain) -> TypeAsker:
        """Return what asks the weights for types; they must be here."""
        return TypeAsker(self._profile, domain, self._model())

    def fits(self, max_tokens: int) -> Callable[[Iterable[Messages]], bool]:
        """Return what says whether prompts fit the model's context beside an answer."""
        if self.weights is None:  # a server knows its own context
            return lambda _prompts: True
        meter = PromptMeter(self.weights.folder, max_tokens=max_tokens, max_prompt_tokens=2**31)
        return meter.fits

    def close(self) -> None:
        """Free the model."""
        if self._loaded is None:
            return
        from ccrl_cli.models import graphs
        from ccrl_cli.models.loading import free_memory

        graphs.release(self._loaded.model)
        self._loaded = None
        free_memory()

    def _model(self) -> Any:
        if self._loaded is None:
            from ccrl_cli.models.loading import load_model

            assert self.weights is not None
            self._loaded = load_model(self.weights, load_options(self._profile))
        return self._loaded
