"""Loading a profile: resolution, precedence, origins, errors, digests, shipped files."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ccrl_cli.config import load
from ccrl_cli.config.dump import to_toml
from ccrl_cli.config.load import load_profile, section_digest, shipped_profiles
from ccrl_cli.config.schema import Profile
from ccrl_cli.errors import ProfileError

MINIMAL = """[model]
name = "org/name"
[data.source]
name = "sample:newswire"
[data.target]
path = "texts.txt"
"""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def refusal(*args, **kwargs) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        load_profile(*args, **kwargs)
    return caught.value


def test_resolution_order():
    assert load_profile().path.name == "quickstart.toml"
    write("ccrl.toml", MINIMAL)
    assert load_profile().path == Path("ccrl.toml")
    assert load_profile("small-gpu").path == shipped_profiles()["small-gpu"]
    assert load_profile(write("other.toml", MINIMAL)).profile.model.name == "org/name"


def test_precedence_and_origins():
    name = write("p.toml", MINIMAL + "[training]\nepochs = 2.0\nlearning_rate = 1e-4\nbeta = 0.5\n")
    loaded = load_profile(
        name,
        ["training.learning_rate=2e-4", "training.beta=0.2", "training.beta=0.3"],
        {"training.learning_rate": 3e-4, "curriculum.pacing": None, "generation.models": []},
        {"training.learning_rate": "--lr"},
    )
    training = loaded.profile.training
    assert (training.epochs, training.learning_rate, training.beta) == (2.0, 3e-4, 0.3)
    assert {key: loaded.origins[f"training.{key}"] for key in ("epochs", "learning_rate")} == {
        "epochs": "profile p.toml:8",
        "learning_rate": "flag --lr",
    }
    assert loaded.origins["training.beta"] == "--set"
    assert loaded.origins["curriculum.pacing"] == "default"
    assert loaded.origins["generation.models"] == "default"


def test_flag_name_defaults_to_the_key():
    loaded = load_profile(flags={"generation.num_completions": 2})
    assert loaded.origins["generation.num_completions"] == "flag --num-completions"


def test_extends():
    write("base.toml", MINIMAL + "[run]\nseed = 5\n[training]\nepochs = 2\n")
    child = write("child.toml", 'extends = "base.toml"\n[training]\nepochs = 3\n')
    loaded = load_profile(child)
    assert (loaded.profile.run.seed, loaded.profile.training.epochs) == (5, 3)
    assert loaded.origins["training.epochs"] == "profile child.toml:3"
    assert loaded.origins["run.seed"] == "profile base.toml:8"
    shipped = write("shipped.toml", 'extends = "quickstart"\n')
    assert load_profile(shipped).profile == load_profile("quickstart").profile
    write("a.toml", 'extends = "b.toml"')
    write("b.toml", 'extends = "a.toml"')
    assert "extends itself" in refusal("a.toml").message


@pytest.mark.parametrize(
    ("assignment", "near"),
    [
        ("training.epoch=1", "training.epochs"),
        ("trainin.epochs=1", "training.epochs"),
        ("generation.epsilon_high=1", "training.epsilon_high"),
        ("data.target.pat='x'", "data.target.path"),
        ("generation.num_completion=4", "generation.num_completions"),
    ],
)
def test_unknown_keys_name_the_nearest(assignment, near):
    error = refusal("quickstart", [assignment])
    assert error.message == f"unknown key {assignment.partition('=')[0]} (--set)"
    assert error.hint == f"did you mean {near}?"
    assert error.exit_code == 2


def test_unknown_key_in_a_file_names_its_line():
    error = refusal(write("p.toml", MINIMAL + "\n[curriculum]\npace = 'step'\n"))
    assert error.message == "unknown key curriculum.pace (profile p.toml:9)"
    assert error.hint == "did you mean curriculum.pacing?"
    far = refusal(write("p.toml", "qwertz = 1\n" + MINIMAL))
    assert far.message == "unknown key qwertz (profile p.toml:1)"


@pytest.mark.parametrize(
    ("old", "new"),
    [("type_habit", "type_prior"), ("type_matching", "prior_matching")],
)
def test_a_key_of_an_earlier_version_names_the_new_one(old, new):
    error = refusal("quickstart", [f"confidence.{old}=0.5"])
    assert error.message == f"confidence.{old} (--set) is called confidence.{new} now"
    assert error.hint.startswith(f"write confidence.{new}")
    assert error.exit_code == 2


@pytest.mark.parametrize("key", ["refresh_every_steps", "refresh_from", "refresh_window"])
def test_a_key_that_is_gone_names_what_replaced_it(key):
    error = refusal("quickstart", [f"curriculum.{key}=2"])
    assert error.message == f"curriculum.{key} (--set) is gone"
    assert "curriculum.rounds = 2" in error.hint


def test_values_out_of_bounds_name_key_value_place():
    error = refusal(write("p.toml", MINIMAL + "[run]\nseed = -3\n"))
    assert error.message == (
        "run.seed = -3 is not valid: input should be greater than or equal to 0 (profile p.toml:8)"
    )
    assert error.hint is not None
    assert error.hint.startswith("run.seed: Seed of every random choice")
    both = refusal("quickstart", ["run.seed=-1"], {"training.num_generations": 1})
    assert "(--set)" in both.message
    assert "(flag --num-generations)" in both.message


def test_cross_field_errors_name_what_was_overridden():
    error = refusal("quickstart", ["confidence.negative=0.9"])
    assert error.message == "confidence: negative (0.9) must not be above positive (0.5) (--set)"


def test_missing_and_misplaced_values():
    error = refusal(write("p.toml", "[data.source]\npath = 'x'\n[data.target]\npath = 'y'\n"))
    assert error.message == "model.name must be set (profile p.toml)"
    assert "run is a section, not a value" in refusal("quickstart", ["run=3"]).message
    assert "run.name.x" in refusal("quickstart", ["run.name.x=3"]).message
    assert "data.type_names" in refusal("quickstart", ["data.type_names=3"]).message
    assert "neither is set" in refusal("quickstart", ["data.target.name="]).message


def test_profiles_that_do_not_exist():
    near = refusal("quikstart")
    assert near.message == "there is no profile named quikstart"
    assert "did you mean quickstart?" in str(near.hint)
    assert "no profile file nope.toml" in refusal("nope.toml").message
    write("mine.toml", MINIMAL)
    assert "--profile mine.toml" in str(refusal("mine").hint)


def test_digests():
    base = load_profile("quickstart")
    same = load_profile("quickstart", [f"run.seed={base.profile.run.seed}"])
    other = load_profile("quickstart", ["training.epochs=7"])
    assert len(base.digest) == 16
    assert base.digest == same.digest != other.digest
    unchanged = ("prompt", "data.target", "generation.temperature")
    assert section_digest(base.profile, *unchanged) == section_digest(other.profile, *unchanged)
    assert section_digest(base.profile, "training") != section_digest(other.profile, "training")
    with pytest.raises(KeyError):
        section_digest(base.profile, "trainin")


def test_digest_is_stable():
    # Run directories of older versions are compared by this value: a change here orphans them.
    loaded = load_profile(write("p.toml", MINIMAL))
    assert section_digest(loaded.profile, "prompt") == "063c7905a4422068"


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_shipped_profiles(name):
    loaded = load_profile(name)
    assert load.describe_profile(loaded.path)
    assert Profile.model_validate(tomllib.loads(to_toml(loaded.profile))) == loaded.profile
    text = loaded.path.read_text(encoding="utf-8")
    before = [
        text.splitlines()[n - 1] for n, line in enumerate(text.splitlines()) if line[:1] == "["
    ]
    assert all(line.startswith("# ") for line in before)


def test_shipped_names():
    assert set(shipped_profiles()) >= {
        "quickstart",
        "rtx4090-few-nerd",
        "rtx4090-crossner",
        "qwen3-8b",
        "llama-3.1-8b",
        "qwen2.5-1.5b-crossner",
        "small-gpu",
    }
    runs = {load_profile(name).profile.run.name for name in shipped_profiles()}
    assert len(runs) == len(shipped_profiles())


def test_profiles_are_found_in_an_installed_package(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "ccrl_cli" / "profiles"
    folder.mkdir(parents=True)
    (folder / "only.toml").write_text(MINIMAL)
    monkeypatch.setattr(load, "__file__", str(folder.parent / "config" / "load.py"))
    assert shipped_profiles() == {"only": folder / "only.toml"}


def test_quickstart_knows_its_corpora():
    data = load_profile("quickstart").profile.data
    root = Path(load.__file__).parent.parent / "data" / "samples"
    for reference in (data.source.reference, data.target.reference):
        corpus = tomllib.loads(
            (root / reference.removeprefix("sample:") / "corpus.toml").read_text()
        )
        assert {k: data.type_names.get(k) for k in corpus.get("type_names", {})} == corpus.get(
            "type_names", {}
        )
