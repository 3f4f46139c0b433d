"""The scoring pass and the teachers on a tiny model with random weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from ccrl_cli.models.loading import LoadedModel  # noqa: E402
from ccrl_cli.models.scoring import ScoringRequest, score_continuations  # noqa: E402
from ccrl_cli.trainers.teachers import BaseTeacher, EmaTeacher, make_teacher  # noqa: E402


class Letters:
    """A tokenizer of one token a character, with the calls that scoring makes."""

    def __call__(self, texts, add_special_tokens=False):
        if isinstance(texts, str):
            return {"input_ids": [ord(c) % 96 for c in texts]}
        return {"input_ids": [[ord(c) % 96 for c in text] for text in texts]}


def tiny():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def loaded():
    return LoadedModel(tiny(), Letters(), (1,), 0, "float32", "cpu")


def plain(loaded, before, after):
    ids = loaded.encode(before + after)
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logits[i - 1, ids[i]].item() for i in range(len(loaded.encode(before)), len(ids)))


REQUESTS = [
    ScoringRequest("one prompt", ("a", "long one", "b")),
    ScoringRequest("another, longer prompt", ("x",)),
    ScoringRequest("no", ()),
    ScoringRequest("short", ("yes", "no", "maybe", "never")),
]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_scores_do_not_depend_on_batches(loaded, batch_rows):
    done = []
    scores = score_continuations(loaded, REQUESTS, batch_rows=batch_rows, on_done=done.append)
    for request, found in zip(REQUESTS, scores, strict=True):
        expected = [plain(loaded, request.prompt, after) for after in request.continuations]
        assert found == pytest.approx(expected, abs=1e-4)
    assert sum(done) == 3  # the request without continuations is no work


def test_a_batch_that_does_not_fit_is_halved(loaded, monkeypatch):
    from ccrl_cli.models import scoring

    whole = score_continuations(loaded, REQUESTS)
    forward = scoring._forward

    def small(model, batch):
        if sum(len(job.rows) for job in batch) > 2:
            raise torch.OutOfMemoryError
        return forward(model, batch)

    monkeypatch.setattr(scoring, "_forward", small)
    halved = score_continuations(loaded, REQUESTS)
    for one, other in zip(whole, halved, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_continuations_that_merge_with_the_prompt_are_cut_earlier():
    class Pairs(Letters):
        """Joins "ab" into one token, across the end of a prompt too."""

        def __call__(self, texts, add_special_tokens=False):
            many = [texts] if isinstance(texts, str) else texts
            ids = [[ord(c) % 96 for c in text.replace("ab", "~")] for text in many]
            return {"input_ids": ids[0] if isinstance(texts, str) else ids}

    loaded = LoadedModel(tiny(), Pairs(), (1,), 0, "float32", "cpu")
    ((merged, apart),) = score_continuations(loaded, [ScoringRequest("xyza", ("b", "c"))])
    # Both are scored from "xyz" on, where the tokens part.
    assert merged == pytest.approx(plain(loaded, "xyz", "ab"), abs=1e-4)
    assert apart == pytest.approx(plain(loaded, "xyz", "ac"), abs=1e-4)


def adapted():
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    return peft.get_peft_model(tiny(), config)


def answer(model):
    with torch.inference_mode():
        return model(torch.tensor([[5, 6, 7]])).logits


def step(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)


def test_the_base_teacher_answers_without_the_adapter():
    model = adapted()
    live = answer(model)
    with BaseTeacher().applied(model) as teacher:
        torch.testing.assert_close(answer(teacher), answer(tiny()))
    torch.testing.assert_close(answer(model), live)
    assert not torch.allclose(live, answer(tiny()))


def test_the_average_follows_slowly_and_leaves_the_policy_alone():
    model = adapted()
    start = answer(model)
    teacher = EmaTeacher(model, decay=0.75)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    step(model)
    teacher.update(model)
    moved = answer(model)
    with teacher.applied(model):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                # A quarter of the step of 0.1.
                torch.testing.assert_close(parameter.detach(), before[name] + 0.025)
        assert not torch.allclose(answer(model), moved)
    torch.testing.assert_close(answer(model), moved)
    assert not torch.allclose(start, moved)


def test_the_policy_comes_back_when_the_teacher_fails():
    model = adapted()
    teacher = EmaTeacher(model, decay=0.5)
    step(model)
    live = answer(model)
    with pytest.raises(KeyError), teacher.applied(model):
        raise KeyError
    torch.testing.assert_close(answer(model), live)


def test_a_saved_average_goes_on():
    model = adapted()
    teacher = EmaTeacher(model, decay=0.5)
    step(model)
    teacher.update(model)
    other = EmaTeacher(model, decay=0.5)
    other.load_state_dict({name: value.clone() for name, value in teacher.state_dict().items()})
    with teacher.applied(model):
        expected = answer(model)
    with other.applied(model):
        torch.testing.assert_close(answer(model), expected)
    with pytest.raises(ValueError, match="other parameters"):
        other.load_state_dict({})


def test_teachers_by_name():
    model = adapted()
    assert make_teacher("rollouts", model, decay=0.9) is None
    assert isinstance(make_teacher("base", model, decay=0.9), BaseTeacher)
    assert isinstance(make_teacher("ema", model, decay=0.9), EmaTeacher)
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        EmaTeacher(model, decay=1.5)
