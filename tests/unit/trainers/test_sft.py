"""Supervised training: where it goes on after a kill, and what it says when memory runs out."""

from __future__ import annotations

import pytest

from ccrl_cli.errors import PreconditionError
from lazily import lazy, needs
from tiny_grpo import adapted

torch = lazy("torch")
sft = lazy("ccrl_cli.trainers.sft")

pytestmark = needs("torch", "transformers", "trl", "peft")


def test_a_checkpoint_that_was_cut_short_is_passed_over_and_removed(tmp_path):
    for step, whole in ((2, True), (4, True), (6, False)):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        (place / "adapter_model.safetensors").write_bytes(b"")
        if whole:
            (place / "trainer_state.json").write_text("{}", encoding="utf-8")
    assert sft.last_whole_step(tmp_path) == 4
    assert not (tmp_path / "checkpoint-6").exists()
    assert sft.last_whole_step(tmp_path / "nothing") == 0


@pytest.mark.parametrize("section", ["warmup", "training"])
def test_memory_that_runs_out_names_the_setting_of_its_section(
    folder, tmp_path, monkeypatch, section
):
    def full(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(sft.Trainer, "train", full)
    loaded = adapted(folder)
    settings = sft.SupervisedSettings("lora", 1, 1e-3, 1, 1, 1, 0)
    with pytest.raises(PreconditionError) as caught:
        sft.train_supervised(
            loaded, [([1], [2])], settings, tmp_path, on_step=lambda *_: None, section=section
        )
    assert f"{section}.micro_batch_size" in caught.value.hint
