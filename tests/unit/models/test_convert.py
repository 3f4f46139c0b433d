"""GGUF files become ordinary model folders."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from ccrl_cli.errors import IntegrityError, PreconditionError
from ccrl_cli.models import convert
from ccrl_cli.models.packages import SpecialTokens

if any(importlib.util.find_spec(name) is None for name in ("gguf", "torch", "transformers")):
    pytest.skip("needs gguf, torch and transformers", allow_module_level=True)

from tiny_gguf import vocabulary, write_tiny_gguf


def converted(folder: Path, *, tokens: SpecialTokens | None = None, **settings):
    """Convert a tiny model; return it loaded, its tokenizer, and the original."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    original = write_tiny_gguf(folder / "tiny.gguf", **settings)
    target = folder / "out"
    target.mkdir()
    convert.convert_gguf(
        folder / "tiny.gguf", target, tokens=tokens, provenance={"sha256": "ab", "license": "MIT"}
    )
    model = AutoModelForCausalLM.from_pretrained(target)
    return model, AutoTokenizer.from_pretrained(target), original


def test_weights_and_answers_are_those_of_the_original(tmp_path):
    import torch

    model, tokenizer, original = converted(tmp_path)
    assert model.dtype == torch.bfloat16
    for name, tensor in original.state_dict().items():
        # The weights were exact in bfloat16, so nothing may differ.
        assert torch.equal(model.state_dict()[name].float(), tensor), name
    ids = torch.tensor([tokenizer("in the hen")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(model.float()(ids).logits, original(ids).logits)
    assert getattr(model.config, "quantization_config", None) is None


def test_tokenizer_and_configuration(tmp_path):
    model, tokenizer, _ = converted(tmp_path)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.pad_token == "<|endoftext|>"  # not the end token that the file names
    assert tokenizer.padding_side == "left"
    assert tokenizer.clean_up_tokenization_spaces is False
    for settings in (model.config, model.generation_config):
        ids = (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id)
        assert ids == (1, 2, 0)
    tokens = vocabulary()
    # "the" has two candidates, "t h" before "h e": "th", then "e".
    assert tokenizer("the hen")["input_ids"] == [
        tokens.index(t) for t in ("th", "e", "Ġ", "he", "n")
    ]
    assert tokenizer.decode(tokenizer("naïve , don't")["input_ids"]) == "naïve , don't"
    turns = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    provenance = json.loads((tmp_path / "out" / convert.PROVENANCE_FILE).read_text())
    assert (provenance["sha256"], provenance["architecture"]) == ("ab", "llama")


def test_the_end_token_is_the_one_the_template_writes(tmp_path):
    model, tokenizer, _ = converted(tmp_path, eos=0, pad=None)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert model.config.eos_token_id == 2
    assert model.generation_config.eos_token_id == [2, 0]  # a document's end stops it too


def test_without_a_template_the_file_decides(tmp_path):
    model, tokenizer, _ = converted(tmp_path, eos=0, pad=1, template=None)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "<|im_start|>")
    assert model.generation_config.eos_token_id == 0


def test_given_tokens_win(tmp_path):
    given = SpecialTokens(bos="<|endoftext|>", eos="<|im_start|>", pad="<|im_end|>")
    model, tokenizer, _ = converted(tmp_path, tokens=given)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert model.config.pad_token_id == 2


def test_settings_of_the_libraries_are_left_as_they_were(tmp_path, capfd):
    import gguf
    import transformers

    before = (gguf.GGUFReader, gguf.get_tensor_name_map)
    verbosity = transformers.logging.get_verbosity()
    source = tmp_path / "tiny.gguf"
    write_tiny_gguf(source)
    (tmp_path / "out").mkdir()
    capfd.readouterr()
    convert.convert_gguf(source, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
    assert transformers.logging.get_verbosity() == verbosity


@pytest.mark.parametrize("content", [b"", b"not a GGUF file", b"GGUF" + b"\xff" * 60])
def test_damaged_files(tmp_path, content):
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(IntegrityError, match="not a readable GGUF file"):
        convert.convert_gguf(tmp_path / "bad.gguf", tmp_path)


def test_a_truncated_file(tmp_path):
    write_tiny_gguf(tmp_path / "tiny.gguf")
    content = (tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "bad.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(IntegrityError):
        convert.convert_gguf(tmp_path / "bad.gguf", tmp_path)


def test_an_unknown_architecture(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(str(tmp_path / "odd.gguf"), "perceptron")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(PreconditionError, match="perceptron"):
        convert.convert_gguf(tmp_path / "odd.gguf", tmp_path)


@pytest.mark.parametrize("name", ["gguf", "torch", "transformers"])
def test_a_missing_package_names_the_install_line(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PreconditionError) as caught:
        convert.convert_gguf(tmp_path / "tiny.gguf", tmp_path)
    assert name in caught.value.message
    assert caught.value.hint == 'pip install "ccrl[quickstart]"'
