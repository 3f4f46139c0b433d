"""The trainer on Unsloth: QLoRA (Dettmers et al., 2305.14314) on one NVIDIA GPU.

Unsloth replaces parts of transformers, PEFT and TRL while it is imported. So it comes first here,
before anything of ours that imports them, and its import refuses when it would come too late.
"""

from __future__ import annotations

from ccrl_cli.models.unsloth_first import import_unsloth, longest_context

unsloth = import_unsloth()

from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402

from ccrl_cli.core.curriculum import CurriculumSampler  # noqa: E402
from ccrl_cli.errors import UsageError  # noqa: E402
from ccrl_cli.models.loading import LoadedModel, choose_dtype, with_tokenizer  # noqa: E402
from ccrl_cli.models.sampling import PromptRequest, Sample, Sampling  # noqa: E402
from ccrl_cli.models.whole import decode_whole  # noqa: E402
from ccrl_cli.trainers.base import (  # noqa: E402
    GrpoSettings,
    TrainHooks,
    TrainResult,
    TrainTask,
)
from ccrl_cli.trainers.grpo import train_grpo  # noqa: E402
from ccrl_cli.trainers.registry import PolicySpec, settled_options  # noqa: E402
from ccrl_cli.trainers.rollouts import Decoder  # noqa: E402
from ccrl_cli.trainers.sft import ALL_LINEAR  # noqa: E402


class UnslothBackend:
    """Trains 4-bit weights on one GPU, with Unsloth's kernels and its decoding loop."""

    def ignored(self, spec: PolicySpec, _settings: GrpoSettings) -> list[str]:
        """Return a sentence for each option that is not followed."""
        found = settled_options(spec)
        found += ["entropy: its loss does not hand it out, so records do not have it"]
        if spec.options.attention != "sdpa":
            found.append(
                f"model.attention = {spec.options.attention}: Unsloth has its own attention"
            )
        if spec.dropout:
            found.append(
                "training.lora_dropout: kept, but Unsloth's fast LoRA kernels work without it alone"
            )
        return found

    def load(self, spec: PolicySpec) -> LoadedModel:
        """Load the policy in Unsloth's form, with an adapter that can be trained."""
        torch.backends.cuda.enable_cudnn_sdp(False)
        chosen = choose_dtype(spec.options.dtype, "cuda", trains=not spec.options.load_in_4bit)
        model, _tokenizer = unsloth.FastLanguageModel.from_pretrained(
            trust_remote_code=False,
            model_name=str(spec.weights.folder),
            max_seq_length=min(longest_context(spec.weights.folder), spec.max_tokens),
            dtype=chosen,
            load_in_4bit=spec.options.load_in_4bit,
            use_exact_model_name=True,
            local_files_only=True,
            fast_inference=False,
        )
        checkpointing = "unsloth" if spec.gradient_checkpointing else False
        if spec.weights.adapter is None:
            model = unsloth.FastLanguageModel.get_peft_model(
                model,
                r=spec.rank,
                lora_alpha=spec.alpha,
                lora_dropout=spec.dropout,
                target_modules=(
                    ALL_LINEAR if spec.modules == (ALL_LINEAR,) else list(spec.modules)
                ),
                bias="none",
                use_gradient_checkpointing=checkpointing,
                random_state=spec.adapter_seed,
            )
        else:
            model = _with_adapter(model, spec.weights.adapter, checkpointing)
        return with_tokenizer(model, spec.weights.folder, dtype=chosen, device="cuda")

    def train(
        self,
        loaded: LoadedModel,
        task: TrainTask,
        sampler: CurriculumSampler,
        settings: GrpoSettings,
        work: Path,
        hooks: TrainHooks,
    ) -> TrainResult:
        """Train; see `train_grpo`.

        Raises:
            UsageError: the micro-batch is no multiple of the group: Unsloth would change it.
        """
        if settings.micro_batch_size % settings.num_generations:
            raise UsageError(
                f"Unsloth takes whole groups: training.micro_batch_size = "
                f"{settings.micro_batch_size} is no multiple of training.num_generations = "
                f"{settings.num_generations}",
                hint=f"--set training.micro_batch_size={settings.num_generations}",
            )
        return train_grpo(loaded, task, sampler, settings, work, hooks, _decoder(loaded))


def _with_adapter(model: Any, adapter: Path, checkpointing: Any) -> Any:
    """Put a trained adapter on Unsloth's model and make it trainable."""
    from peft import PeftModel

    wrapped = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    return unsloth.FastLanguageModel.patch_peft_model(wrapped, checkpointing)


def _decoder(loaded: LoadedModel) -> Decoder:
    """Return a decoder that goes through Unsloth's own loop."""

    def decode(
        model: Any, requests: Sequence[PromptRequest], sampling: Sampling
    ) -> dict[Any, list[Sample]]:
        was_training = model.training
        unsloth.FastLanguageModel.for_inference(model)
        try:
            return dict(
                decode_whole(
                    model, requests, sampling, end_ids=loaded.end_ids, pad_id=loaded.pad_id
                )
            )
        finally:
            # It also turns gradient checkpointing on again, which for_inference turned off.
            unsloth.FastLanguageModel.for_training(model)
            model.train(was_training)

    return decode
