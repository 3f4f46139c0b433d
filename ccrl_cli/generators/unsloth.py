"""Generate with Unsloth: its kernels and its decoding loop, our draws (a seed a sample).

Unsloth changes transformers and TRL while it is imported, so it must come before them. Importing
this module imports neither; the generator imports Unsloth first and refuses if it is too late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ccrl_cli.generators.base import SamplingSettings
from ccrl_cli.generators.transformers import TransformersGenerator
from ccrl_cli.models.loading import choose_dtype, with_tokenizer
from ccrl_cli.models.sampling import PromptRequest, Sample, Sampling
from ccrl_cli.models.unsloth_first import import_unsloth, longest_context
from ccrl_cli.models.whole import decode_whole


class UnslothGenerator(TransformersGenerator):
    """Completions from a local model folder by Unsloth.

    A batch is handed out when all of its answers have ended: Unsloth's loop cannot let rows go.

    Args:
        folder: model folder.
        settings: sampling settings.
        adapter: LoRA adapter in PEFT format, kept apart from the weights.
        dtype: number format of the computation.
        load_in_4bit: NF4 weights.
        attention: read by other backends; Unsloth has its own.
    """

    name = "unsloth"

    def __init__(
        self,
        folder: Path,
        settings: SamplingSettings,
        *,
        adapter: Path | None = None,
        dtype: str = "auto",
        load_in_4bit: bool = False,
        attention: str = "sdpa",  # noqa: ARG002 - one signature for every local backend
    ) -> None:
        unsloth = import_unsloth()
        chosen = choose_dtype(dtype, "cuda")
        torch.backends.cuda.enable_cudnn_sdp(False)
        model, _tokenizer = unsloth.FastLanguageModel.from_pretrained(
            model_name=str(folder),
            max_seq_length=longest_context(folder),
            dtype=chosen,
            load_in_4bit=load_in_4bit,
            use_exact_model_name=True,
            local_files_only=True,
            fast_inference=False,
        )
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
        unsloth.FastLanguageModel.for_inference(model)
        loaded = with_tokenizer(model, folder, dtype=chosen, device="cuda")
        self._attach(loaded, settings)
        self.details = {**self.details, "unsloth": str(unsloth.__version__)}

    def _decode_rows(
        self, prompts: Sequence[PromptRequest], sampling: Sampling
    ) -> Iterator[tuple[Any, list[Sample]]]:
        loaded = self.loaded
        return decode_whole(
            loaded.model, prompts, sampling, end_ids=loaded.end_ids, pad_id=loaded.pad_id
        )
