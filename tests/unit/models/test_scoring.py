"""The scoring pass on a tiny model with random weights."""

from __future__ import annotations

import pytest

from lazily import lazy, needs

torch = lazy("torch")
transformers = lazy("transformers")
LoadedModel = lazy("ccrl_cli.models.loading", "LoadedModel")
ScoringRequest = lazy("ccrl_cli.models.scoring", "ScoringRequest")
score_continuations = lazy("ccrl_cli.models.scoring", "score_continuations")

pytestmark = needs("torch", "transformers")


class Letters:
    """A tokenizer of one token a character, with the calls that scoring makes."""

    all_special_tokens = ("<e>",)

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


@pytest.fixture
def requests():
    return [
        ScoringRequest("one prompt", ("a", "long one", "b")),
        ScoringRequest("another, longer prompt", ("x",)),
        ScoringRequest("no", ()),
        ScoringRequest("short", ("yes", "no", "maybe", "never")),
        # Rows that begin alike, as one span under several types; one is the beginning of another.
        ScoringRequest("spans", ("juno is a", "juno is b!", "juno is", "nasa is a", "nasa", "x")),
    ]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_scores_do_not_depend_on_batches(loaded, requests, batch_rows):
    done = []
    scores = score_continuations(loaded, requests, batch_rows=batch_rows, on_done=done.append)
    for request, found in zip(requests, scores, strict=True):
        expected = [plain(loaded, request.prompt, after) for after in request.continuations]
        assert found == pytest.approx(expected, abs=1e-4)
    assert sum(done) == 4  # the request without continuations is no work


def test_a_batch_that_does_not_fit_is_halved(loaded, requests, monkeypatch):
    from ccrl_cli.models import scoring

    whole = score_continuations(loaded, requests)
    forward = scoring._forward

    def small(model, batch):
        if sum(len(job.rows) for job in batch) > 2:
            raise torch.OutOfMemoryError
        return forward(model, batch)

    monkeypatch.setattr(scoring, "_forward", small)
    halved = score_continuations(loaded, requests)
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


class Counted(Letters):
    """Counts the characters that it is given; `<e>` is one token, at which it cuts a text."""

    def __init__(self, begin=""):
        self.begin = begin
        self.characters = 0

    def __call__(self, texts, add_special_tokens=False):
        many = [texts] if isinstance(texts, str) else texts
        self.characters += sum(map(len, many))
        ids = [[ord(c) % 96 for c in self.begin + text.replace("<e>", "|")] for text in many]
        return {"input_ids": ids[0] if isinstance(texts, str) else ids}


def chat():
    return ScoringRequest("a chat prompt of some length<e>ok ", ("one", "two", "three", "four"))


def test_a_long_prompt_is_not_tokenised_again_for_every_continuation():
    counted = Counted()
    loaded = LoadedModel(tiny(), counted, (1,), 0, "float32", "cpu")
    (found,) = score_continuations(loaded, [chat()])
    assert counted.characters < 3 * len(chat().prompt)
    expected = [plain(loaded, chat().prompt, after) for after in chat().continuations]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_tokenizer_that_begins_every_text_alike_is_given_whole_texts():
    loaded = LoadedModel(tiny(), Counted(begin="_"), (1,), 0, "float32", "cpu")
    (found,) = score_continuations(loaded, [chat()])
    expected = [plain(loaded, chat().prompt, after) for after in chat().continuations]
    assert found == pytest.approx(expected, abs=1e-4)


def test_what_rows_share_runs_once(loaded, monkeypatch):
    """Twelve types of one span: its tokens run once, not twelve times."""
    model, ran = loaded.model, []
    forward = model.forward

    def counted(*args, **options):
        ran.append(options["input_ids"].numel())
        return forward(*args, **options)

    monkeypatch.setattr(model, "forward", counted)
    span = "a span of many tokens, of type "
    request = ScoringRequest("prompt", tuple(span + kind for kind in "abcdefghijkl"))
    (found,) = score_continuations(loaded, [request])
    assert sum(ran) < 2 * len(span) + 3 * 12
    monkeypatch.undo()
    expected = [plain(loaded, request.prompt, after) for after in request.continuations]
    assert found == pytest.approx(expected, abs=1e-4)
