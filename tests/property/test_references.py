"""Model references: every text is read or refused, and what is read can be written again."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.errors import UsageError
from ccrl_cli.models.references import parse_reference

WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
LIKELY = st.lists(
    st.one_of(
        WORD, st.sampled_from(["/", "@", "pypi:", "==", "#sha256=", ".gguf", "./", "~", ":"])
    ),
    max_size=6,
).map("".join)


@given(st.one_of(st.text(max_size=40), LIKELY))
def test_every_text_is_read_or_refused_with_a_hint(text):
    try:
        found = parse_reference(text)
    except UsageError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.hint
        return
    again = parse_reference(found.canonical)
    assert again == found
    assert re.fullmatch(r"[\w.@+-]+", found.slug)
    assert not found.slug.endswith(".")
    assert len(found.slug) <= 110


@given(WORD, WORD, WORD, WORD)
def test_references_that_differ_have_slugs_that_differ(one, two, three, four):
    texts = {f"{one}/{two}", f"{one}/{two}@{three}", f"{one}/{two}@{three}/{four}"}
    texts |= {f"pypi:{one}", f"pypi:{one}=={two}", f"./{one}", f"{one}.gguf"}
    found = []
    for text in texts:
        try:
            found.append(parse_reference(text))
        except UsageError:
            continue
    assert len({reference.slug for reference in found}) == len(set(found))
