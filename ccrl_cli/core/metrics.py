"""Entity precision, recall and F1 against gold spans; forgetting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ccrl_cli.records import Alignment, Score, Span


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Span-level comparison of a corpus; ratios are fractions, not percent.

    Attributes:
        micro: counts over all types, hallucinated mentions among the false positives.
        per_type: counts by type, sorted by name: every type of the label set, and every other type
            that was predicted or is in the gold labels, under its own name.
        macro_f1: unweighted mean of F1 over the types of the label set that have gold or predicted
            mentions; 1 when none has.
        num_sentences: inputs compared.
        num_hallucinated: predicted mentions that could not be placed on their text.
        num_unknown_type: predicted mentions, placed or not, whose type is outside the label set.
        num_exact: inputs whose prediction equals the gold labels and has no hallucinated mention.
    """

    micro: Score
    per_type: Mapping[str, Score]
    macro_f1: float
    num_sentences: int
    num_hallucinated: int
    num_unknown_type: int
    num_exact: int

    @property
    def num_gold(self) -> int:
        """Gold mentions."""
        return self.micro.true_positives + self.micro.false_negatives

    @property
    def num_predicted(self) -> int:
        """Predicted mentions, hallucinated ones included."""
        return self.micro.true_positives + self.micro.false_positives

    @property
    def hallucinated_share(self) -> float:
        """Share of predicted mentions that are hallucinated; 0 when nothing was predicted."""
        return self.num_hallucinated / self.num_predicted if self.num_predicted else 0.0


def score_spans(
    gold: Sequence[Iterable[Span]], predicted: Sequence[Alignment], types: Sequence[str]
) -> Evaluation:
    """Compare predicted with gold spans, exact range and type (CoNLL-2003, Tjong Kim Sang 2003).

    A hallucinated mention is a false positive of its type. seqeval never sees it, since it has no
    tokens: the two agree exactly where nothing is hallucinated (seqeval ``mode="strict"``, IOB2),
    except that seqeval calls F1 of nothing against nothing 0 and here it is 1.

    Args:
        gold: N inputs, each its gold spans.
        predicted: N alignments, in the same order.
        types: the label set; other types count in ``micro`` and ``per_type``, not in ``macro_f1``.

    Raises:
        ValueError: the two sequences differ in length.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold inputs but {len(predicted)} predictions")
    true_positives: Counter[str] = Counter()
    num_gold: Counter[str] = Counter()
    num_predicted: Counter[str] = Counter()
    num_exact = 0
    for spans, alignment in zip(gold, predicted, strict=True):
        due = set(spans)
        found = due.intersection(alignment.spans)
        true_positives.update(span.type for span in found)
        num_gold.update(span.type for span in due)
        num_predicted.update(span.type for span in alignment.spans)
        num_predicted.update(mention.type for mention in alignment.hallucinated)
        stated = len(alignment.spans) + len(alignment.hallucinated)
        num_exact += len(found) == len(due) == stated
    per_type = {
        name: Score(
            true_positives[name],
            num_predicted[name] - true_positives[name],
            num_gold[name] - true_positives[name],
        )
        for name in sorted({*types, *num_gold, *num_predicted})
    }
    return Evaluation(
        micro=sum(per_type.values(), Score()),
        per_type=per_type,
        macro_f1=_macro_f1(per_type, types),
        num_sentences=len(gold),
        num_hallucinated=sum(len(alignment.hallucinated) for alignment in predicted),
        num_unknown_type=num_predicted.total() - sum(num_predicted[name] for name in set(types)),
        num_exact=num_exact,
    )


def sentence_score(
    gold: Iterable[Hashable], predicted: Sequence[Hashable], num_hallucinated: int
) -> Score:
    """Return the counts of one sentence, as :func:`score_spans` adds them up.

    Args:
        gold: gold spans, each with range and type.
        predicted: predicted spans, of the same kind.
        num_hallucinated: predicted mentions without a place: false positives.
    """
    due = set(gold)
    right = len(due.intersection(predicted))
    return Score(right, len(predicted) + num_hallucinated - right, len(due) - right)


def _macro_f1(per_type: Mapping[str, Score], types: Iterable[str]) -> float:
    """Return the mean F1 of the listed types that occur on either side; 1 when none does."""
    occurring = [per_type[name] for name in sorted(set(types)) if per_type[name] != Score()]
    return sum(score.f1 for score in occurring) / len(occurring) if occurring else 1.0


def forgetting(before: float, after: float) -> float:
    """Return the source F1 lost by adaptation; negative where the source got better.

    Args:
        before: source F1 of the starting model.
        after: source F1 of the adapted model.
    """
    return before - after
