"""Labels as answers of their own group: what is learnt from them, and what is not told of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ccrl_cli.config.schema import Profile
from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.rewards import RewardWeights, make_target
from ccrl_cli.core.telemetry import RolloutRow, make_groups, summarise
from ccrl_cli.records import Entity, Example
from ccrl_cli.trainers.base import TrainInput, TrainTask
from lazily import lazy, needs
from tiny_grpo import (
    SENTENCES,
    SETTINGS,
    adapter_state,
    answering_folder,
    make_sampler,
    run_grpo,
    with_adapter,
    without_times,
)

torch = lazy("torch")
load_model = lazy("ccrl_cli.models.loading", "load_model")
LoadOptions = lazy("ccrl_cli.models.weights", "LoadOptions")
Weights = lazy("ccrl_cli.models.weights", "Weights")
kl_of_answers = lazy("ccrl_cli.trainers.probe", "kl_of_answers")
Rewards = lazy("ccrl_cli.trainers.rollouts", "Rewards")
Rollouts = lazy("ccrl_cli.trainers.rollouts", "Rollouts")
merged_decoder = lazy("ccrl_cli.trainers.rollouts", "merged_decoder")

pytestmark = needs("trl")

GUIDED = replace(
    SETTINGS,
    num_steps=12,
    prompts_per_step=4,
    micro_batch_size=16,
    learning_rate=2e-2,
    max_completion_tokens=48,
    label_answers=1,
    save_every_steps=100,
    probe_every_steps=100,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model that calls every first word a person."""
    return answering_folder(tmp_path_factory)


def input_of(loaded, key: str, text: str, kind: str) -> TrainInput:
    """Return an input whose label calls the first word a `kind`."""
    name = text.split()[0]
    example = Example(text, *tokenize(text))
    target = make_target(Aligner(example), [Entity(name, kind)])
    prompt = loaded.render([{"role": "user", "content": text}])
    types = {"person": "person", "place": "place"}
    return TrainInput(key, prompt, target, 1.0, types, f'[{{"text": "{name}", "type": "{kind}"}}]')


def task_of(loaded, kind: str, **more) -> TrainTask:
    """Return a task of every sentence."""
    inputs = {f"i{n}": input_of(loaded, f"i{n}", text, kind) for n, text in enumerate(SENTENCES)}
    return TrainTask(inputs, RewardWeights(format_weight=0.2), tuple(inputs.values()), **more)


def trained(folder, work, settings, kind="place"):
    """Train on labels of a kind; return the records."""
    loaded = with_adapter(load_model(Weights(folder), LoadOptions("float32")))
    task = task_of(loaded, kind)
    draws = make_sampler(settings, names=tuple(task.inputs))
    records, _ = run_grpo(loaded, task, draws, settings, work)
    return records, adapter_state(loaded)


def label_logprob(loaded, task) -> float:
    """Return the mean log-probability of the labels' tokens, in nats."""
    found = []
    for item in task.inputs.values():
        prompt, answer = loaded.encode(item.prompt), loaded.encode(item.answer)
        tokens = torch.tensor([prompt + answer])
        with torch.no_grad():
            logprobs = loaded.model(tokens).logits.log_softmax(dim=-1)[0, len(prompt) - 1 : -1]
        found.append(logprobs.gather(1, torch.tensor(answer)[:, None]).mean())
    return float(torch.stack(found).mean())


def test_a_type_that_the_policy_never_says_is_learnt_from_labels_alone(folder, tmp_path):
    after = {}
    for given in (0, 1):
        loaded = with_adapter(load_model(Weights(folder), LoadOptions("float32")))
        task = task_of(loaded, "place")
        before = label_logprob(loaded, task)
        settings = replace(GUIDED, label_answers=given, learning_rate=2e-3)
        draws = make_sampler(settings, names=tuple(task.inputs))
        records, _ = run_grpo(loaded, task, draws, settings, tmp_path / str(given))
        assert records[0]["label_f1"] == 0, "it said the type before"
        after[given] = label_logprob(loaded, task)
    # Far likelier with labels (builds of PyTorch differ by a few hundredths), and not without.
    assert after[1] > 0.7 * before > before > after[0] - 0.2, (before, after)


def test_a_cut_training_goes_on_as_a_straight_one(folder, tmp_path):
    settings = replace(GUIDED, num_steps=4, save_every_steps=1)
    straight, whole = trained(folder, tmp_path / "straight", settings)
    loaded = with_adapter(load_model(Weights(folder), LoadOptions("float32")))
    task = task_of(loaded, "place")
    draws = make_sampler(settings, names=tuple(task.inputs))
    run_grpo(loaded, task, draws, settings, tmp_path / "cut", stop_after=1)
    rest, again = trained(folder, tmp_path / "cut", settings)
    assert without_times(rest) == without_times(straight[-len(rest) :])
    assert all(torch.equal(whole[name], again[name]) for name in whole)


class Trainer:
    """What rollouts need of TRL's trainer."""

    def __init__(self, model) -> None:
        self.model = model
        self.accelerator = self
        self.state = type("State", (), {"global_step": 0})

    def unwrap_model(self, model):
        return model


def test_the_label_is_the_last_of_its_group_and_no_sample(folder):
    loaded = with_adapter(load_model(Weights(folder), LoadOptions("float32")))
    task = task_of(loaded, "place")
    rollouts = Rollouts(loaded, GUIDED, merged_decoder(loaded), task)
    ids = [key for key in ("i0", "i3") for _ in range(4)]
    prompts = [task.inputs[key].prompt for key in ids]
    rollouts.input_ids = ids
    rows = rollouts(prompts, Trainer(loaded.model))
    label = [*loaded.encode(task.inputs["i3"].answer), loaded.end_ids[0]]
    assert rows["completion_ids"][7] == label
    assert [rollout.off_policy for rollout in rollouts.drawn] == [False, False, False, True] * 2
    sampled = [len(ids) for n, ids in enumerate(rows["completion_ids"]) if n % 4 != 3]
    assert rollouts.tokens == sum(sampled)
    without = Rollouts(loaded, replace(GUIDED, label_answers=0), merged_decoder(loaded), task)
    without.input_ids = ids
    plain = without(prompts, Trainer(loaded.model))
    assert plain["completion_ids"][:3] == rows["completion_ids"][:3], "other samples were drawn"

    rewards = Rewards(task, rollouts)
    texts = [loaded.text(ids) for ids in rows["completion_ids"]]
    keys = ["i0"] * 4 + ["i3"] * 4
    overlap = rewards.functions()[0](texts, rows["completion_ids"], keys)
    assert overlap[3] == overlap[7] == 1


def test_inputs_that_render_alike_keep_their_own_labels(folder):
    loaded = with_adapter(load_model(Weights(folder), LoadOptions("float32")))
    task = task_of(loaded, "place")
    twin = replace(task.inputs["i3"], prompt=task.inputs["i0"].prompt)
    task = replace(task, inputs={**task.inputs, "i3": twin})
    rollouts = Rollouts(loaded, GUIDED, merged_decoder(loaded), task)
    rollouts.input_ids = ["i0"] * 4 + ["i3"] * 4
    rows = rollouts([twin.prompt] * 8, Trainer(loaded.model))
    labels = [[*loaded.encode(task.inputs[k].answer), loaded.end_ids[0]] for k in ("i0", "i3")]
    assert [rows["completion_ids"][3], rows["completion_ids"][7]] == labels
    assert labels[0] != labels[1]


def test_a_label_that_is_too_long_stays_out(folder):
    loaded = with_adapter(load_model(Weights(folder), LoadOptions("float32")))
    task = task_of(loaded, "place")
    short = replace(GUIDED, max_completion_tokens=8)
    rollouts = Rollouts(loaded, short, merged_decoder(loaded), task)
    rollouts.input_ids = ["i0"] * 4
    rollouts([task.inputs["i0"].prompt] * 4, Trainer(loaded.model))
    assert [rollout.off_policy for rollout in rollouts.drawn] == [False] * 4


def test_the_median_of_answers_leaves_one_rare_token_out():
    # Three answers of 2, 1 and 3 tokens: means 0.1, 0.2 and 9.
    tokens = torch.tensor([0.1, 0.1, 0.2, 0.0, 27.0, 0.0])
    found = kl_of_answers(tokens, [2, 1, 3])
    assert found == pytest.approx({"kl": 27.4 / 6, "kl_median": 0.2})


def row(overlap: float, *, off_policy: bool = False) -> RolloutRow:
    """Return a scored rollout."""
    return RolloutRow(
        "a", False, overlap, overlap, 0.0, 0.0, overlap, 1, 1, "valid", 10, False, off_policy
    )


def test_means_are_of_samples_and_the_spread_is_of_all():
    rows = [row(0.25), row(0.25), row(0.25), row(1.0, off_policy=True)]
    groups = make_groups(rows, 4)
    # mean 0.4375; deviations 3 x 0.1875 and 0.5625: variance (3 x 0.03515625 + 0.31640625) / 4
    assert groups[0].spread == pytest.approx(0.10546875**0.5)
    assert groups[0].overlap == 0.25
    found = summarise(rows, groups)
    assert found["reward"] == found["label_f1"] == 0.25
    assert found["zero_spread_share"] == 0


def test_labels_may_not_be_the_whole_group():
    with pytest.raises(
        ValueError, match=r"label_answers \(4\) must be below num_generations \(4\)"
    ):
        Profile.model_validate({"training": {"label_answers": 4, "num_generations": 4}})
