"""From a GGUF file to an ordinary model folder: safetensors in bfloat16, tokenizer, configuration.

The conversion happens once; training needs ordinary weights, and loading those is fast.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ccrl_cli.errors import IntegrityError, PreconditionError
from ccrl_cli.models.packages import SpecialTokens

VERSION = 1
"""Part of the name of every converted folder: a change here converts again."""

PROVENANCE_FILE = "ccrl-model.json"
_PROBE = "zqxjk"  # stands for an answer in the chat template
_PAD_NAMES = ("<|endoftext|>", "<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<unk>")


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """Token texts and the special ids that a GGUF file states.

    Attributes:
        tokens: V token texts, in order of their ids.
        special: texts of control and user-defined tokens.
        ids: ``bos``, ``eos``, ``pad``, ``unk`` to token id, where stated.
    """

    tokens: Sequence[str]
    special: frozenset[str]
    ids: Mapping[str, int]

    def text(self, name: str) -> str | None:
        """Return the text of a special token, or None if the file does not state it."""
        number = self.ids.get(name)
        if number is None or not 0 <= number < len(self.tokens):
            return None
        return self.tokens[number]


def convert_gguf(
    source: Path,
    target: Path,
    *,
    tokens: SpecialTokens | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the model of a GGUF file as a folder that transformers loads without options.

    Special tokens are those the file states, with two corrections: the end token is the one that
    the chat template writes after an answer, and padding is a token of its own where there is
    one, so that training does not mask the end token with it.

    Args:
        source: the GGUF file; quantised weights are restored to bfloat16.
        target: folder to write into; it exists.
        tokens: special tokens that override those of the file.
        provenance: entries for `PROVENANCE_FILE`; versions are added.

    Raises:
        PreconditionError: gguf, torch or transformers is missing, or transformers does not know
            the architecture.
        IntegrityError: the file is no GGUF file, or is damaged.
    """
    gguf, torch, transformers = require_packages()
    with _quiet(transformers), _parsed_once(gguf):
        vocabulary, architecture = _read_metadata(gguf, source)
        folder, name = str(source.parent), source.name
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, gguf_file=name, trust_remote_code=False
            )
            loaded = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                gguf_file=name,
                trust_remote_code=False,
                dtype=torch.bfloat16,
                quantization_config=transformers.GgufConfig(dequantize=True),
            )
        except (ValueError, KeyError, NotImplementedError) as error:
            raise PreconditionError(
                f"transformers {transformers.__version__} cannot read {source} "
                f"(architecture {architecture}): {error}",
                hint="use the safetensors version of the model: org/name",
            ) from error
        model = _ordinary(loaded, torch, transformers)
        chosen = _special_tokens(vocabulary, tokenizer, tokens)
        _apply_tokens(tokenizer, model, chosen, vocabulary)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    _clean_tokenizer_config(target / "tokenizer_config.json")
    for weights in target.glob("*.safetensors"):  # written for the owner alone
        weights.chmod((target / "config.json").stat().st_mode)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    content = {**(provenance or {}), "architecture": architecture, "converter": VERSION}
    content["versions"] = versions
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (target / PROVENANCE_FILE).write_text(text, encoding="utf-8")


def require_packages() -> tuple[Any, Any, Any]:
    """Return the modules gguf, torch and transformers.

    Raises:
        PreconditionError: one of them cannot be imported.
    """
    modules = []
    for name in ("gguf", "torch", "transformers"):
        try:
            modules.append(import_module(name))
        except ImportError as error:
            raise PreconditionError(
                f"converting a GGUF model needs the package {name}, which cannot be imported "
                f"({error})",
                hint='pip install "ccrl[quickstart]"',
            ) from error
    return modules[0], modules[1], modules[2]


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Switch off progress bars and warnings of transformers for a while."""
    settings = transformers.utils.logging
    reading: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    bars, verbosity = settings.is_progress_bar_enabled(), settings.get_verbosity()
    bar = reading.tqdm  # this one does not heed the setting
    reading.tqdm = functools.partial(bar, disable=True)
    settings.disable_progress_bar()
    settings.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        reading.tqdm = bar
        settings.set_verbosity(verbosity)
        if bars:
            settings.enable_progress_bar()


@contextmanager
def _parsed_once(gguf: Any) -> Iterator[None]:
    """Let everyone share one parsed GGUF file while this lasts.

    transformers parses the file four times, and the table of tensor names once for each module;
    both are pure functions of their arguments. Halves the time of a conversion.
    """
    kept: dict[str, Callable[..., Any]] = {
        name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")
    }
    reader = functools.cache(kept["GGUFReader"])
    gguf.GGUFReader = lambda path, *rest: reader(str(path), *rest)
    gguf.get_tensor_name_map = functools.cache(kept["get_tensor_name_map"])
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(gguf, name, function)


def _read_metadata(gguf: Any, source: Path) -> tuple[_Vocabulary, str]:
    """Return vocabulary and architecture of a GGUF file."""
    try:
        fields = gguf.GGUFReader(str(source)).fields

        def content(key: str) -> Any:
            field = fields.get(key)
            return None if field is None else field.contents()

        texts = content("tokenizer.ggml.tokens") or []
        kinds = content("tokenizer.ggml.token_type") or []
        names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
        ids = {
            short: number
            for short, name in names.items()
            if (number := content(f"tokenizer.ggml.{name}_token_id")) is not None
        }
        architecture = str(content("general.architecture"))
    except (ValueError, IndexError, OverflowError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"{source} is not a readable GGUF file: {error}",
            hint="download the file again and compare its checksum",
        ) from error
    special = {gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED}
    marked = frozenset(t for t, kind in zip(texts, kinds, strict=False) if kind in special)
    return _Vocabulary(texts, marked, ids), architecture


def _ordinary(loaded: Any, torch: Any, transformers: Any) -> Any:
    """Return the same weights in a model that can be saved.

    A model read from GGUF counts as quantised and refuses. The new one is made without memory
    and takes over the tensors as they are.
    """
    values = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "unk_token_id"):
        values.pop(key, None)
    config = type(loaded.config).from_dict(values)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict(), strict=True, assign=True)
    model.tie_weights()
    return model


def _special_tokens(
    vocabulary: _Vocabulary, tokenizer: Any, override: SpecialTokens | None
) -> SpecialTokens:
    """Decide on begin, end and padding token."""
    given = override or SpecialTokens()
    end = given.eos or _end_of_turn(tokenizer, vocabulary) or vocabulary.text("eos")
    end = end or tokenizer.eos_token
    pad = given.pad or vocabulary.text("pad")
    if pad is None or (pad == end and given.pad is None):
        known = set(vocabulary.tokens)
        candidates = (*_PAD_NAMES, vocabulary.text("unk"))
        pad = next((name for name in candidates if name in known and name != end), end)
    return SpecialTokens(given.bos or vocabulary.text("bos"), end, pad)


def _end_of_turn(tokenizer: Any, vocabulary: _Vocabulary) -> str | None:
    """Return the special token that the chat template writes right after an answer."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # templates are programs; one that fails here says nothing about the end
        return None
    after = text.rpartition(_PROBE)[2].lstrip() if _PROBE in text else ""
    fitting = [token for token in vocabulary.special if token and after.startswith(token)]
    return max(fitting, key=len, default=None)


def _apply_tokens(
    tokenizer: Any, model: Any, tokens: SpecialTokens, vocabulary: _Vocabulary
) -> None:
    """Set special tokens alike in tokenizer, configuration and generation settings."""
    if tokens.bos is not None:
        tokenizer.bos_token = tokens.bos
    tokenizer.eos_token, tokenizer.pad_token = tokens.eos, tokens.pad
    tokenizer.padding_side = "left"
    tokenizer.clean_up_tokenization_spaces = False
    for settings in (model.config, model.generation_config):
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
        settings.bos_token_id = tokenizer.bos_token_id
    stated = vocabulary.ids.get("eos")
    if stated is not None and stated != tokenizer.eos_token_id:
        # Generation stops at both: a base model ends a document, a chat model its turn.
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, stated]


def _clean_tokenizer_config(path: Path) -> None:
    """Drop what describes the loading process, and state padding side and clean-up."""
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {
        key: value
        for key, value in content.items()
        if not key.endswith("_id") and key not in ("local_files_only", "is_local")
    }
    kept.update(padding_side="left", clean_up_tokenization_spaces=False)
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
