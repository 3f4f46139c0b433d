"""spaCy's binary corpora (``.spacy``), through spaCy itself."""

from __future__ import annotations

from collections.abc import Iterator

from ccrl_cli.data.examples import Mention, Row, TextRow
from ccrl_cli.errors import DataError, PreconditionError


def read_spacy(content: bytes, source: str) -> Iterator[Row]:
    """Yield the documents of a ``DocBin`` with their entities.

    Raises:
        PreconditionError: spaCy is not installed.
        DataError: the file is no DocBin.
    """
    try:
        import spacy
        from spacy.tokens import DocBin
    except ImportError:
        raise PreconditionError(
            f"{source} is a corpus of spaCy, which is not installed", hint="pip install spacy"
        ) from None
    try:
        documents = list(DocBin().from_bytes(content).get_docs(spacy.blank("xx").vocab))
    except Exception as error:  # spaCy raises what zlib, msgpack and its tables do
        raise DataError(f"{source}: the file is no corpus of spaCy ({error})", hint=None) from None
    for number, document in enumerate(documents, start=1):
        mentions = tuple(
            Mention(entity.text, entity.label_, entity.start_char, entity.end_char)
            for entity in document.ents
        )
        yield TextRow(f"{source}: document {number}", document.text, mentions, "spaCy")
