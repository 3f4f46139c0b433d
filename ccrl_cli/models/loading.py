"""Load a tokenizer and a causal language model, with an adapter where one is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.errors import GpuMemoryError, PreconditionError
from ccrl_cli.files import replacing_folder
from ccrl_cli.models.chat_template import end_of_turn, render_chat
from ccrl_cli.models.modes import open_weights
from ccrl_cli.models.weights import LoadOptions, Weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

BUILTIN = "builtin:"
DEFAULT_OPTIONS = LoadOptions()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, its tokenizer and what decoding needs of them."""

    model: Any
    tokenizer: Any
    end_ids: tuple[int, ...]
    pad_id: int
    dtype: str
    device: str

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """Return the chat prompt as one string, ready for `encode`."""
        return render_chat(self.tokenizer, messages)

    def encode(self, prompt: str) -> list[int]:
        """Return the tokens of a rendered prompt; the template holds its special tokens itself."""
        return encode_prompt(self.tokenizer, prompt)

    def encode_answer(self, text: str) -> list[int]:
        """Return the tokens of an answer, the end token included."""
        return [*self.encode(text), self.end_ids[0]]

    def text(self, token_ids: Sequence[int]) -> str:
        """Return an answer without its special tokens."""
        return str(
            self.tokenizer.decode(
                list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Return the tokens of a rendered prompt; the template holds its special tokens itself."""
    return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def require_training_packages() -> None:
    """Raise PreconditionError when torch or transformers are not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]
    if missing:
        raise PreconditionError(
            f"this command needs {', '.join(missing)}, which this Python does not have",
            hint='pip install "ccrl[quickstart]"',
        )


def resolve_adapter(adapter: str | None) -> Path | None:
    """Return the folder of an adapter: a path, or one that ships with the package.

    Raises:
        PreconditionError: there is no adapter at that place.
    """
    if not adapter:
        return None
    if adapter.startswith(BUILTIN):
        folder = Path(__file__).resolve().parent / "adapters" / adapter.removeprefix(BUILTIN)
    else:
        folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise PreconditionError(
            f"no adapter at {adapter!r} (adapter_config.json is not there)",
            hint="make one with `ccrl warmup`, or unset it: --set model.adapter=",
        )
    return folder


def choose_device() -> str:
    """Return the device models run on: ``cuda`` where there is one, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(wanted: str, device: str, *, trains: bool = False) -> torch.dtype:
    """Return the number format of the weights.

    ``auto`` is bfloat16 where the device computes in it. Graphics cards older than Ampere (T4,
    V100, RTX 20) emulate it: they decode in float16 and train in float32, since gradients vanish
    in float16. A processor without bfloat16 instructions is slower with them than in float32.

    Args:
        wanted: ``auto``, ``bfloat16``, ``float16`` or ``float32``.
        device: ``cuda`` or ``cpu``.
        trains: gradients are taken.
    """
    import torch

    if wanted != "auto":
        return {
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
            "float32": torch.float32,
        }[wanted]
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        return torch.float32 if trains else torch.float16
    capabilities = torch.backends.cpu.get_cpu_capability()
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_bfloat16 and "AVX512" in capabilities else torch.float32


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the loading bars and advice of transformers: progress is the reporter's."""
    import transformers
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _end_ids(model: Any, tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """Return the tokens that end an answer: the template's end of turn first, then those stated.

    Raises:
        PreconditionError: there is none.
    """
    configured = model.generation_config.eos_token_id
    many = configured if isinstance(configured, list) else [configured]
    ids = [end_of_turn(tokenizer), *many, tokenizer.eos_token_id]
    found = tuple(dict.fromkeys(int(i) for i in ids if i is not None))
    if not found:
        raise PreconditionError(
            f"the model in {folder} names no token that ends an answer",
            hint="set eos_token in its tokenizer_config.json, or choose another model",
        )
    return found


def load_model(
    weights: Weights, options: LoadOptions = DEFAULT_OPTIONS, *, trainable: bool = False
) -> LoadedModel:
    """Load an ordinary model folder of transformers, and an adapter upon it.

    Args:
        weights: folder and adapter, which is merged into the weights unless `trainable`.
        options: number format and attention.
        trainable: keep the adapter apart so that it can be trained on.
    """
    require_training_packages()
    import torch
    from transformers import AutoModelForCausalLM

    device = choose_device()
    trains = trainable and not options.load_in_4bit
    chosen = choose_dtype(options.dtype, device, trains=trains)
    if device == "cuda":
        # cuDNN attention gave NaN gradients at some left-padded lengths (torch 2.11).
        torch.backends.cuda.enable_cudnn_sdp(False)
    arguments: dict[str, Any] = {"dtype": chosen, "attn_implementation": options.attention}
    if options.load_in_4bit:
        arguments["quantization_config"] = _nf4(chosen)
        arguments["device_map"] = {"": torch.cuda.current_device()}
    with quiet_transformers(), own_code_refused(weights.folder):
        model = AutoModelForCausalLM.from_pretrained(
            weights.folder, trust_remote_code=False, **arguments
        )
        if not options.load_in_4bit:
            model = model.to(device)
        if weights.adapter is not None:
            model = _with_adapter(model, weights.adapter, trainable=trainable)
    model.eval()
    return with_tokenizer(model, weights.folder, dtype=chosen, device=device)


def with_tokenizer(model: Any, folder: Path, *, dtype: torch.dtype, device: str) -> LoadedModel:
    """Return a model with the tokenizer of its folder and what decoding needs of both."""
    tokenizer = load_tokenizer(folder)
    end_ids = _end_ids(model, tokenizer, folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = end_ids[0]
    rows = model.get_input_embeddings().weight.shape[0]
    if max(tokenizer.get_vocab().values()) >= rows and not getattr(model, "is_quantized", False):
        raise PreconditionError(
            f"the tokenizer in {folder} has tokens up to number "
            f"{max(tokenizer.get_vocab().values())}, the model embeddings for {rows}",
            hint="fetch model and tokenizer again: they do not belong together",
        )
    model.generation_config.eos_token_id = list(end_ids) if len(end_ids) > 1 else end_ids[0]
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        end_ids=end_ids,
        pad_id=int(tokenizer.pad_token_id),
        dtype=str(dtype).removeprefix("torch."),
        device=device,
    )


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a model folder, padding on the left.

    Raises:
        PreconditionError: it would run code of its own, or cannot be read.
    """
    from transformers import AutoTokenizer

    with quiet_transformers(), own_code_refused(folder):
        return AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)


@contextmanager
def own_code_refused(folder: Path) -> Iterator[None]:
    """Turn the refusal to run a model folder's own code into an error that says so."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise PreconditionError(
            f"the model in {folder} brings program code of its own, which ccrl never runs",
            hint="choose a model whose architecture transformers knows",
        ) from error


def _nf4(compute: torch.dtype) -> Any:
    """Return the NF4 configuration (Dettmers et al., QLoRA, 2305.14314)."""
    from importlib.util import find_spec

    import torch

    if find_spec("bitsandbytes") is None or not torch.cuda.is_available():
        raise PreconditionError(
            "model.load_in_4bit needs an NVIDIA GPU and the package bitsandbytes",
            hint='pip install "ccrl[cuda]", or --set model.load_in_4bit=false',
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _with_adapter(model: Any, adapter: Path, *, trainable: bool) -> Any:
    """Put an adapter on a model: apart when it will be trained, else merged into the weights."""
    from peft import PeftModel

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise PreconditionError(
            f"the adapter at {adapter} is of type {config.get('peft_type')!r}, not LORA",
            hint="name a LoRA adapter in model.adapter",
        )
    wrapped = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    for part in wrapped.peft_config.values():
        # A reference of ours is no path: PEFT would look for a configuration there.
        part.base_model_name_or_path = model.name_or_path
    if trainable or getattr(model, "is_quantized", False):
        return wrapped
    return wrapped.merge_and_unload()


@contextmanager
def memory_errors(setting: str) -> Iterator[None]:
    """Turn a lack of GPU memory into an error that names the setting to lower."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise GpuMemoryError(
            f"the GPU ran out of memory: {str(error).partition('. ')[0]}",
            hint=f"lower {setting}; what was saved is kept",
        ) from error


def free_memory() -> None:
    """Give the memory of models that nobody holds any more back, on the GPU too."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def save_adapter(model: Any, folder: Path, *, base: str, half: bool = False) -> None:
    """Write a LoRA adapter in PEFT format, atomically, naming its base as the user names it.

    Args:
        model: a model of PEFT with the adapter ``default`` on it.
        folder: where to write; an older adapter there is replaced.
        base: reference of the base model, for the adapter's configuration.
        half: store the weights in bfloat16, in half the space.

    Raises:
        HeldError: another program has the older adapter open.
    """
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    kind = torch.bfloat16 if half else torch.float32
    weights = {
        key: value.detach().to("cpu", kind).contiguous()
        for key, value in get_peft_model_state_dict(model, adapter_name="default").items()
    }
    config = model.peft_config["default"]
    with replacing_folder(folder) as fresh:
        save_file(weights, str(fresh / "adapter_model.safetensors"), metadata={"format": "pt"})
        open_weights(fresh)
        config.inference_mode = True
        config.save_pretrained(str(fresh))
        config.inference_mode = False
        place = fresh / "adapter_config.json"
        content = json.loads(place.read_text(encoding="utf-8"))
        content["base_model_name_or_path"] = base
        for key in ("target_modules", "modules_to_save", "exclude_modules"):  # sets, in any order
            if isinstance(content.get(key), list):
                content[key] = sorted(content[key])
        place.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
