"""Published scores to print beside ours. Never to be read as if measured on the same files."""

from __future__ import annotations

from dataclasses import dataclass

WARNING = (
    "Published rows are from other papers, models and test files (CrossNER rows are means of five "
    "domains): for orientation, not comparable with the rows above."
)


@dataclass(frozen=True, slots=True)
class ReferenceScore:
    """One score of another system.

    Attributes:
        system: model or method.
        setting: what was scored, and how.
        f1: F1 in percent, as published.
        source: where it was published.
    """

    system: str
    setting: str
    f1: float
    source: str


_ZERO_SHOT = "CrossNER zero-shot, mean of five domains"
_REASONING = "ReasoningNER, AAAI 2026"

REFERENCE_SCORES: tuple[ReferenceScore, ...] = (
    ReferenceScore("Qwen3-4B, prompted", _ZERO_SHOT, 62.4, _REASONING),
    ReferenceScore("Qwen3-8B, prompted", _ZERO_SHOT, 66.1, _REASONING),
    ReferenceScore("UniNER-7B", _ZERO_SHOT, 60.0, "UniversalNER, ICLR 2024"),
    ReferenceScore("GoLLIE-7B", _ZERO_SHOT, 60.5, "GoLLIE, ICLR 2024"),
    ReferenceScore("GLiNER-L", _ZERO_SHOT, 65.3, "GLiNER, NAACL 2024"),
    ReferenceScore("GNER-T5-xxl", _ZERO_SHOT, 74.0, "GNER, ACL Findings 2024"),
    ReferenceScore("B2NER-7B", _ZERO_SHOT, 75.3, "B2NER, COLING 2025"),
    ReferenceScore("DiZiNER", _ZERO_SHOT, 76.8, "DiZiNER, ACL 2026 (2604.15866)"),
    ReferenceScore("BERT-base", "CoNLL-2003, supervised", 92.4, "Devlin et al., NAACL 2019"),
    ReferenceScore("SpanMarker", "Few-NERD, 66 types, supervised", 70.5, "SpanMarker model card"),
)
