"""Generate with Unsloth: its kernels and its decoding loop, our draws (a seed a sample).

Unsloth changes transformers and TRL while it is imported, so it must come before them. Importing
this module imports neither; the generator imports Unsloth first and refuses if it is too late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ccrl_cli.generators.base import SamplingSettings
from ccrl_cli.generators.transformers import TransformersGenerator
from ccrl_cli.models.loading import DEFAULT_OPTIONS, choose_dtype, with_tokenizer
from ccrl_cli.models.sampling import PromptRequest, Sample, Sampling
from ccrl_cli.models.unsloth_first import import_unsloth, longest_context
from ccrl_cli.models.weights import LoadOptions, Weights
from ccrl_cli.models.whole import decode_whole


class UnslothGenerator(TransformersGenerator):
    """Completions from a local model folder by Unsloth.

    A batch is handed out when all of its answers have ended: Unsloth's loop cannot let rows go.

    Args:
        weights: model folder, and an adapter that is kept apart from it.
        settings: sampling settings.
        options: number format; Unsloth has its own attention.
    """

    name = "unsloth"

    def __init__(
        self,
        weights: Weights,
        settings: SamplingSettings,
        options: LoadOptions = DEFAULT_OPTIONS,
    ) -> None:
        unsloth = import_unsloth()
        chosen = choose_dtype(options.dtype, "cuda")
        torch.backends.cuda.enable_cudnn_sdp(False)
        model, _tokenizer = unsloth.FastLanguageModel.from_pretrained(
            trust_remote_code=False,
            model_name=str(weights.folder),
            max_seq_length=longest_context(weights.folder),
            dtype=chosen,
            load_in_4bit=options.load_in_4bit,
            use_exact_model_name=True,
            local_files_only=True,
            fast_inference=False,
        )
        if weights.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(weights.adapter))
        unsloth.FastLanguageModel.for_inference(model)
        loaded = with_tokenizer(model, weights.folder, dtype=chosen, device="cuda")
        self._attach(loaded, settings)
        self.details = {**self.details, "unsloth": str(unsloth.__version__)}

    def _decode_rows(
        self, prompts: Sequence[PromptRequest], sampling: Sampling
    ) -> Iterator[tuple[Any, list[Sample]]]:
        loaded = self.loaded
        return decode_whole(
            loaded.model, prompts, sampling, end_ids=loaded.end_ids, pad_id=loaded.pad_id
        )
