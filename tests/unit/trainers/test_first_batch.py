"""The answers' place in what a trainer hands out, in TRL's form and in Unsloth's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazily import lazy, needs

pytestmark = needs("torch")

torch = lazy("torch")
_by_answer = lazy("ccrl_cli.trainers.sanity", "_by_answer")


def window(rows: list[list[float]], padding: list[int], width: int) -> torch.Tensor:
    """Lay answers out as Unsloth does: behind what the shorter prompts still owe, then rubbish."""
    extra = max(padding)
    found = torch.full((len(rows), extra + width), 99.0)
    for place, row in enumerate(rows):
        begin = extra - padding[place]
        found[place, begin : begin + len(row)] = torch.tensor(row)
    return found


@given(st.data())
def test_answers_are_found_again(data):
    width = data.draw(st.integers(1, 6))
    answer = st.lists(st.floats(-9, 0, width=32), min_size=1, max_size=width)
    rows = data.draw(st.lists(answer, min_size=1, max_size=4))
    padding = data.draw(st.lists(st.integers(0, 5), min_size=len(rows), max_size=len(rows)))
    prompt = torch.tensor([[0] * p + [1] * (8 - p) for p in padding])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    found = _by_answer(window(rows, padding, width), prompt, mask)
    assert found.shape == mask.shape
    for place, row in enumerate(rows):
        assert found[place, : len(row)].tolist() == torch.tensor(row).tolist()


def test_values_of_answers_alone_stay_as_they_are():
    values = torch.randn(2, 3)
    assert _by_answer(values, torch.tensor([[0, 1], [1, 1]]), torch.ones(2, 3)) is values
