"""Generate with the vLLM engine in this process's care: each input is handed out when it is done.

Requests stream through the engine: as many inputs as the profile allows are in flight, and a new
one enters when one leaves. Every sample is a request of its own with a seed of its own; samples of
one prompt share its prefill through the prefix cache.

Log-probabilities are vLLM's raw ones: of the model itself, before temperature, nucleus and pattern,
as with the other backends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ccrl_cli.core.answers import answer_pattern
from ccrl_cli.errors import PartialError, PreconditionError
from ccrl_cli.generators.base import Gathering, Generated, GenerationRequest, SamplingSettings
from ccrl_cli.generators.registry import how_to_install
from ccrl_cli.models.chat_template import end_of_turn, render_chat
from ccrl_cli.models.loading import (
    DEFAULT_OPTIONS,
    choose_device,
    choose_dtype,
    encode_prompt,
    free_memory,
    load_tokenizer,
    quiet_transformers,
)
from ccrl_cli.models.weights import LoadOptions, Weights
from ccrl_cli.records import Completion, Finish

#: Ranks of adapters that vLLM makes room for.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_FINISHES: dict[str | None, Finish] = {"stop": "stop", "length": "length"}
#: The longest prompt and answer that fit memory, as vLLM measures it.
_LONGEST_THAT_FITS = -1
_LONGEST_ON_CPU = 8192


class VllmGenerator:
    """Completions from a local model folder by vLLM.

    Args:
        weights: model folder, and an adapter that the engine applies.
        settings: sampling settings.
        options: number format, and whether bitsandbytes quantises to 4 bits while loading; vLLM
            chooses its own attention.
        memory_share: share of the GPU's memory that the engine takes.
    """

    name = "vllm"

    def __init__(
        self,
        weights: Weights,
        settings: SamplingSettings,
        options: LoadOptions = DEFAULT_OPTIONS,
        *,
        memory_share: float = 0.9,
    ) -> None:
        if find_spec("vllm") is None:
            raise PreconditionError(
                "the vllm backend needs the package vllm, which this Python does not have",
                hint=f"{how_to_install('vllm')}, or choose --backend transformers",
            )
        _prepare_environment()
        device = choose_device()
        chosen = str(choose_dtype(options.dtype, device)).removeprefix("torch.")
        arguments = engine_arguments(weights.folder, chosen, device)
        if weights.adapter is not None:
            rank = _room_for_rank(weights.adapter)
            arguments |= {"enable_lora": True, "max_lora_rank": rank}
        if options.load_in_4bit:
            arguments["quantization"] = "bitsandbytes"
        if device == "cuda":
            arguments["gpu_memory_utilization"] = memory_share
        with quiet_transformers():
            engine = _start_engine(**arguments)
        self._attach(engine, weights.folder, settings, chosen, _lora_request(weights.adapter))

    @classmethod
    def around(cls, engine: Any, folder: Path, settings: SamplingSettings) -> VllmGenerator:
        """Generate with an engine that runs already; `close` stops it."""
        generator = cls.__new__(cls)
        dtype = str(engine.model_config.dtype).removeprefix("torch.")
        generator._attach(engine, folder, settings, dtype)
        return generator

    def _attach(
        self,
        engine: Any,
        folder: Path,
        settings: SamplingSettings,
        dtype: str,
        lora: Any = None,
    ) -> None:
        import vllm

        self._tokenizer = load_tokenizer(folder)
        self._turn_end = end_of_turn(self._tokenizer)
        self._engine: Any = engine
        self._settings = settings
        self._lora = lora
        self._pattern = answer_pattern(settings.answer_types) if settings.answer_types else None
        self.special_tokens = tuple(self._tokenizer.all_special_tokens)
        self.details = {"dtype": dtype, "vllm": vllm.__version__}

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generated]:
        """Yield each input when its K completions are done, in the order in which they end."""
        waiting = iter(requests)
        gathering: dict[str, Gathering] = {}
        owners: dict[str, tuple[str, int]] = {}
        finished = 0
        try:
            while True:
                while len(gathering) < self._settings.batch_size:
                    request = next(waiting, None)
                    if request is None:
                        break
                    gathering[request.input_id] = Gathering(request, time.perf_counter())
                    yield from self._submit(request, gathering, owners)
                if not gathering:
                    return
                for output in self._step(finished):
                    if not output.finished or output.request_id not in owners:
                        continue
                    input_id, k = owners.pop(output.request_id)
                    completion = _completion(output.outputs[0])
                    done = gathering[input_id].add(k, completion, time.perf_counter())
                    if done is not None:
                        del gathering[input_id]
                        finished += 1
                        yield done
        finally:
            if owners:
                with suppress(Exception):  # the engine may be what failed
                    self._engine.abort_request(list(owners))

    def close(self) -> None:
        """Stop the engine and its processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.engine_core.shutdown()
        del engine
        free_memory()

    def _step(self, finished: int) -> Any:
        """Let the engine work a little; return what ended.

        Raises:
            PartialError: its process died after some inputs were done.
            PreconditionError: it died before.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return self._engine.step()
        except EngineDeadError as error:
            kind = PartialError if finished else PreconditionError
            raise kind(
                f"the process of the vLLM engine died; {finished} inputs were finished before",
                hint="its own messages are above; go on with `ccrl generate --resume`, a smaller "
                "generation.batch_size, or --backend transformers",
            ) from error

    def _submit(
        self,
        request: GenerationRequest,
        gathering: dict[str, Gathering],
        owners: dict[str, tuple[str, int]],
    ) -> Iterator[Generated]:
        """Hand the K samples of an input to the engine; an input too long for it is done at once.

        The engine's limit is what the model or its memory can hold. Such an input gets completions
        with finish ``error``, so that it is counted and not lost.
        """
        tokens: dict[str, list[int]] = {}
        for k, (prompt, seed) in enumerate(zip(request.prompts, request.seeds, strict=True)):
            text = render_chat(self._tokenizer, prompt)
            if text not in tokens:
                tokens[text] = encode_prompt(self._tokenizer, text)
            if len(tokens[text]) >= self._engine.model_config.max_model_len:
                failed = Completion("", None, 0, "error")
                done = gathering[request.input_id].add(k, failed, time.perf_counter())
                if done is not None:
                    del gathering[request.input_id]
                    yield done
                continue
            name = f"{request.input_id}:{k}"
            self._engine.add_request(
                name,
                {"prompt_token_ids": tokens[text]},
                self._parameters(seed),
                lora_request=self._lora,
            )
            owners[name] = (request.input_id, k)

    def _parameters(self, seed: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        pattern = self._pattern
        return SamplingParams(
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            max_tokens=self._settings.max_tokens,
            seed=seed,
            stop_token_ids=[] if self._turn_end is None else [self._turn_end],
            logprobs=0,  # of the drawn token alone
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(regex=pattern) if pattern else None,
        )


def _prepare_environment() -> None:
    """Keep vLLM quiet, local and off stdout, which is the result's; the user's settings stand."""
    for name, value in {
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
    }.items():
        os.environ.setdefault(name, value)


def engine_arguments(folder: Path, dtype: str, device: str) -> dict[str, Any]:
    """Return the arguments of an engine for a model folder, adapters and memory apart.

    On a CPU nothing is compiled, which takes longer than it saves. Prompts are not prefilled in
    pieces there: vLLM 0.32 then sets back the random stream of a request with a seed, which ends
    the engine with "CPU Generator does not use offset". That needs a batch as long as the longest
    prompt, so a limit stands in for all the model could hold.
    """
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": dtype,
        "max_model_len": _LONGEST_THAT_FITS,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
    }
    if device == "cpu":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        longest = min(_LONGEST_ON_CPU, int(config.get("max_position_embeddings", _LONGEST_ON_CPU)))
        arguments |= {
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_model_len": longest,
            "max_num_batched_tokens": max(longest, 2048),
        }
    return arguments


def _start_engine(**arguments: Any) -> Any:
    """Start the engine; raise PreconditionError with its reason when it cannot."""
    from vllm import EngineArgs, LLMEngine

    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments))
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        raise PreconditionError(
            f"vLLM cannot start with this model: {reason}",
            hint="see its own messages with VLLM_LOGGING_LEVEL=INFO, or use --backend transformers",
        ) from error


def _room_for_rank(adapter: Path) -> int:
    """Return the smallest rank that vLLM reserves and the adapter fits."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max([config.get("r", 8), *config.get("rank_pattern", {}).values()])
    for room in _RANKS:
        if rank <= room:
            return room
    raise PreconditionError(
        f"the adapter at {adapter} has rank {rank}, and vLLM takes at most {_RANKS[-1]}",
        hint="use --backend transformers",
    )


def _lora_request(adapter: Path | None) -> Any:
    if adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("ccrl", 1, str(adapter.resolve()))


def _completion(output: Any) -> Completion:
    count = len(output.token_ids)
    total = output.cumulative_logprob
    return Completion(
        text=output.text,
        mean_logprob=None if total is None or not count else round(total / count, 6),
        num_tokens=count,
        finish=_FINISHES.get(output.finish_reason, "error"),
    )
