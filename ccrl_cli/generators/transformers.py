"""Generate with transformers: batches of like length, shared prefill, a seed a completion."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ccrl_cli.errors import PreconditionError
from ccrl_cli.generators.base import Generated, GenerationRequest, Message, SamplingSettings
from ccrl_cli.models import graphs
from ccrl_cli.models.constraint import TokenConstraint
from ccrl_cli.models.decoding import decode_batch, plan_batches
from ccrl_cli.models.loading import DEFAULT_OPTIONS, LoadedModel, free_memory, load_model
from ccrl_cli.models.sampling import PromptRequest, Sample, Sampling, decoding_bytes
from ccrl_cli.models.weights import LoadOptions, Weights
from ccrl_cli.records import Completion

#: Share of the free GPU memory that keys, values and logits of a batch may take: the prompts' cache
#: and the samples' stand beside each other for a moment.
MEMORY_SHARE = 0.45


class TransformersGenerator:
    """Completions from a local model folder.

    Args:
        weights: model folder, and an adapter that is merged into it.
        settings: sampling settings.
        options: number format and attention.
    """

    name = "transformers"

    def __init__(
        self,
        weights: Weights,
        settings: SamplingSettings,
        options: LoadOptions = DEFAULT_OPTIONS,
    ) -> None:
        self._attach(load_model(weights, options), settings)

    @classmethod
    def around(cls, loaded: LoadedModel, settings: SamplingSettings) -> TransformersGenerator:
        """Generate with a model that is loaded already."""
        generator = cls.__new__(cls)
        generator._attach(loaded, settings)
        return generator

    def _attach(self, loaded: LoadedModel, settings: SamplingSettings) -> None:
        import transformers

        self._loaded: LoadedModel | None = loaded
        self._settings = settings
        self._constraint = (
            TokenConstraint(settings.answer_types, loaded.tokenizer, loaded.end_ids)
            if settings.answer_types
            else None
        )
        self.special_tokens = tuple(loaded.tokenizer.all_special_tokens)
        self.details = {
            "dtype": loaded.dtype,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generated]:
        """Yield each input as soon as its K completions are done, longest batch first."""
        prepared = [(request, self._prepare(request)) for request in requests]
        for batch in plan_batches(
            prepared,
            self._settings.batch_size,
            width=lambda pair: max(len(prompt.token_ids) for prompt in pair[1]),
            rows=lambda pair: len(pair[0].seeds),
            fits=self._fits(),
        ):
            yield from self._decode(batch)

    def close(self) -> None:
        """Free the model."""
        if self._loaded is not None:
            graphs.release(self._loaded.model)
        self._loaded = None
        free_memory()

    @property
    def loaded(self) -> LoadedModel:
        """The model; raises RuntimeError after `close`."""
        if self._loaded is None:
            raise RuntimeError("the generator is closed")
        return self._loaded

    def _fits(self) -> Callable[[int, int], bool]:
        """Return whether rows of a width fit the profile's limit and, on a GPU, its free memory."""
        settings, model = self._settings, self.loaded.model
        limit = settings.max_batch_tokens
        room = math.inf
        if self.loaded.device == "cuda":
            free, _ = torch.cuda.mem_get_info()
            room = MEMORY_SHARE * free
        token, row = decoding_bytes(model)

        def fits(rows: int, width: int) -> bool:
            tokens = rows * (width + settings.max_tokens)
            return (limit is None or tokens <= limit) and tokens * token + rows * row <= room

        return fits

    def _prepare(self, request: GenerationRequest) -> list[PromptRequest]:
        """Tokenise the distinct prompts of one input; equal ones become one with several seeds."""
        places: dict[str, list[int]] = {}
        for k, prompt in enumerate(request.prompts):
            places.setdefault(self._render(prompt), []).append(k)
        return [
            PromptRequest(
                (request.input_id, tuple(indices)),
                self.loaded.encode(text),
                [request.seeds[k] for k in indices],
            )
            for text, indices in places.items()
        ]

    def _render(self, prompt: Sequence[Message]) -> str:
        return self.loaded.render([dict(message) for message in prompt])

    def _decode(
        self, batch: list[tuple[GenerationRequest, list[PromptRequest]]]
    ) -> Iterator[Generated]:
        """Decode one batch; when memory runs out, go on in halves with what is not done yet."""
        done: set[str] = set()
        try:
            for generated in self._run(batch):
                done.add(generated.input_id)
                yield generated
            return
        except torch.OutOfMemoryError as error:
            free_memory()
            rest = [pair for pair in batch if pair[0].input_id not in done]
            if len(rest) == 1:
                raise PreconditionError(
                    f"one input with K={len(rest[0][0].seeds)} does not fit into memory",
                    hint="lower generation.max_tokens or num_completions, or load_in_4bit = true",
                ) from error
        half = (len(rest) + 1) // 2
        yield from self._decode(rest[:half])
        yield from self._decode(rest[half:])

    def _run(
        self, batch: list[tuple[GenerationRequest, list[PromptRequest]]]
    ) -> Iterator[Generated]:
        started = time.perf_counter()
        settings = self._settings
        sampling = Sampling(settings.temperature, settings.max_tokens, settings.top_p)
        found: dict[str, dict[int, Completion]] = {r.input_id: {} for r, _ in batch}
        wanted = {r.input_id: len(r.seeds) for r, _ in batch}
        flat = [prompt for _, prompts in batch for prompt in prompts]
        for (input_id, places), samples in self._decode_rows(flat, sampling):
            for k, sample in zip(places, samples, strict=True):
                found[input_id][k] = self._completion(sample)
            if len(found[input_id]) == wanted[input_id]:
                answers = found.pop(input_id)
                yield Generated(
                    input_id,
                    tuple(answers[k] for k in range(wanted[input_id])),
                    time.perf_counter() - started,
                )

    def _decode_rows(
        self, prompts: Sequence[PromptRequest], sampling: Sampling
    ) -> Iterator[tuple[Any, list[Sample]]]:
        loaded = self.loaded
        static = graphs.usable(loaded.model, prompts, sampling, share=MEMORY_SHARE)
        return decode_batch(
            loaded.model,
            prompts,
            sampling,
            end_ids=loaded.end_ids,
            pad_id=loaded.pad_id,
            static=static,
            constraint=self._constraint,
        )

    def _completion(self, sample: Sample) -> Completion:
        return Completion(
            text=self.loaded.text(sample.token_ids),
            mean_logprob=round(sample.mean_logprob, 6),
            num_tokens=len(sample.token_ids),
            finish=sample.finish,
        )
