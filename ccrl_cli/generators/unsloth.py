"""Generate with Unsloth: its kernels and its decoding loop, our draws (a seed a sample).

Unsloth changes transformers and TRL while it is imported, so it must come before them. Importing
this module imports neither; the generator imports Unsloth first and refuses if it is too late.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ccrl_cli.errors import PreconditionError
from ccrl_cli.generators.base import SamplingSettings
from ccrl_cli.generators.transformers import TransformersGenerator
from ccrl_cli.models.decoding import PromptRequest, Sample, Sampling
from ccrl_cli.models.loading import choose_dtype, with_tokenizer
from ccrl_cli.models.whole import decode_whole

#: Longest prompt and answer that position tables are made for.
LONGEST = 8192
_BEFORE = ("transformers", "trl", "peft")


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
            max_seq_length=_longest(folder),
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


def import_unsloth() -> Any:
    """Import Unsloth before what it changes.

    Raises:
        PreconditionError: it is not installed, there is no GPU, or it would come too late.
    """
    if "unsloth" not in sys.modules:
        if find_spec("unsloth") is None:
            raise PreconditionError(
                "the unsloth backend needs the package unsloth, which this Python does not have",
                hint='pip install "ccrl[unsloth]", or choose --backend transformers',
            )
        if not torch.cuda.is_available():
            raise PreconditionError(
                "the unsloth backend needs a GPU, and PyTorch finds none",
                hint="choose --backend transformers; see `ccrl doctor`",
            )
        if early := [name for name in _BEFORE if name in sys.modules]:
            raise PreconditionError(
                f"Unsloth must be imported before {', '.join(early)}, which this process loaded",
                hint="call the command again (a conversion that came first is done now), or "
                "choose --backend transformers",
            )
    import unsloth

    return unsloth


def _longest(folder: Path) -> int:
    """Return how long prompt and answer may be: what the model was made for, up to `LONGEST`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    return min(LONGEST, int(config.get("max_position_embeddings", LONGEST)))
