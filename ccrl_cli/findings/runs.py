"""The finding of one run, from the content of ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccrl_cli.findings import (
    Caveat,
    CaveatKind,
    Finding,
    Tone,
    percent,
    points,
    shared_caveats,
    span,
)

COLLAPSED_BELOW = 0.1
"""Answers with fewer mentions than this share of the gold ones are called a collapse."""

KEPT_WITHIN = 0.02
"""A source whose change surely lies above minus this counts as kept."""

ONE_TRAINING = Caveat(
    CaveatKind.one_training,
    "One training: the intervals say what these weights would score on other sentences, and "
    "nothing of what another training would give.",
)
NO_LABELLER = Caveat(
    CaveatKind.no_labeller,
    "What the untrained labeller alone gives on these sentences was not scored, so nothing is said "
    "of what training adds to it.",
)


def run_finding(evaluation: Mapping[str, Any] | None) -> Finding:
    """Return the outcome of one run.

    Where the untrained start was scored by the way in which labels are made, that labeller comes
    first: a training is worth what it adds to it. The tone is ``good`` where the target surely rose
    (above the labeller, if it was scored) and the source surely kept within `KEPT_WITHIN`; ``bad``
    where the target surely fell, or the source surely fell without a sure gain.

    Args:
        evaluation: content of ``evaluation.json``; None if the run was not evaluated.
    """
    if evaluation is None:
        return Finding("This run has not been evaluated, so there is no answer yet.")
    domains = evaluation.get("domains") or {}
    target, source = domains.get("target") or {}, domains.get("source") or {}
    caveats = _caveats(evaluation, target, source)
    change, kept = target.get("delta_f1"), source.get("delta_f1")
    if change is None:
        return Finding(_single(target), "open", caveats)
    text = f"{_target_part(target, change)}{_source_part(change, kept)}."
    over = target.get("over_labeller")
    if over is not None:
        text = f"{labeller_part(evaluation, over)} Greedily: {text[0].lower()}{text[1:]}"
    return Finding(text, _tone(over or change, kept), caveats)


def labeller_scores(target: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the scores of the untrained start, decoded as labels are made; None without them."""
    vote = (target.get("decoded") or {}).get("vote") or {}
    return vote.get("before") or None


def decoded_scores(domain: Mapping[str, Any], decode: str, when: str) -> Mapping[str, Any] | None:
    """Return the scores of one way to answer, ``greedy`` among them; None without them."""
    if decode == "greedy":
        return domain.get(when) or None
    return ((domain.get("decoded") or {}).get(decode) or {}).get(when) or None


def labeller_part(evaluation: Mapping[str, Any], over: Mapping[str, float]) -> str:
    """Return what the labeller alone gives, and what training adds to it, in a sentence.

    Args:
        evaluation: content of ``evaluation.json``, in which the labeller was scored.
        over: F1 after training minus the labeller's, with its interval over sentences.
    """
    target = evaluation["domains"]["target"]
    decode = str(evaluation.get("decode") or "greedy")
    alone = labeller_scores(target) or {}
    after = decoded_scores(target, decode, "after") or {}
    if over["low"] > 0:
        word = "training adds to that"
    elif over["high"] < 0:
        word = "training takes from that"
    else:
        word = "whether training adds to that cannot be told"
    return (
        f"The untrained labeller alone has a target F1 of {percent(alone['f1'])} on the same "
        f"{alone['num_sentences']} sentences, the trained model {percent(after['f1'])} "
        f"({decode} answers): {word} ({points(over['value'])} points, 95 % interval over sentences "
        f"{span(over['low'], over['high'])})."
    )


def _single(target: Mapping[str, Any]) -> str:
    scores = target.get("after") or target.get("before")
    if not scores:
        return "The target was not scored, so there is no answer yet."
    when = "after" if target.get("after") else "before"
    alone = labeller_scores(target)
    labeller = f", of the untrained labeller {percent(alone['f1'])}" if alone else ""
    return (
        f"Target F1 of greedy answers is {percent(scores['f1'])} {when} training{labeller}; "
        "without the other side there is no change to judge."
    )


def _target_part(target: Mapping[str, Any], change: Mapping[str, float]) -> str:
    """Return what happened to the target, with the interval of the change."""
    before, after = target["before"]["f1"], target["after"]["f1"]
    numbers = f"from {percent(before)} to {percent(after)} ({_interval(change)})"
    if change["low"] > 0:
        return f"Target F1 rose {numbers}"
    if change["high"] < 0:
        return f"Target F1 fell {numbers}"
    if change["value"] == 0:
        return f"Target F1 did not move: it stayed at {percent(after)} ({_interval(change)})"
    return f"Target F1 went {numbers}, which is not distinguishable from no change"


def _source_part(target: Mapping[str, float], change: Mapping[str, float] | None) -> str:
    """Return what happened to the source, joined to the target's part."""
    if change is None:
        return "; the source domain was not scored on both sides, so forgetting is unknown"
    numbers = f"{points(change['value'])} points ({span(change['low'], change['high'])})"
    if change["high"] < 0:
        word = "but" if target["low"] > 0 else "and"
        return f", {word} source F1 was lost: {numbers}"
    if change["low"] > 0:
        return f", and source F1 rose as well: {numbers}"
    if change["low"] < -KEPT_WITHIN:
        return (
            f"; source F1 changed by {numbers}, so no loss is shown, "
            f"but one of up to {points(change['low']).lstrip('−')} points is not excluded"
        )
    return f", and source F1 was kept: {numbers}"


def _interval(change: Mapping[str, float]) -> str:
    limits = span(change["low"], change["high"])
    return f"{points(change['value'])} points, 95 % interval over sentences {limits}"


def _tone(change: Mapping[str, float], kept: Mapping[str, float] | None) -> Tone:
    lost = kept is not None and kept["high"] < 0
    if change["high"] < 0:
        return "bad"
    if change["low"] > 0:
        return "good" if kept is not None and kept["low"] >= -KEPT_WITHIN else "open"
    return "bad" if lost else "open"


def _caveats(
    evaluation: Mapping[str, Any], target: Mapping[str, Any], source: Mapping[str, Any]
) -> tuple[Caveat, ...]:
    counts = [
        scores["num_sentences"]
        for domain in (target, source)
        if (scores := domain.get("after") or domain.get("before"))
    ]
    found = [
        *shared_caveats(
            reportable=bool(evaluation.get("reportable")),
            fewest=min(counts, default=None),
            mode=target.get("mode"),
        )
    ]
    silent = [n for n, d in (("target", target), ("source", source)) if _collapsed(d)]
    if silent:
        found.append(
            Caveat(
                CaveatKind.collapsed,
                "Collapsed: after training the model names next to nothing in the "
                f"{' and the '.join(silent)} domain.",
            )
        )
    if target.get("after") and not target.get("over_labeller"):
        found.append(NO_LABELLER)
    return (*found, ONE_TRAINING)


def _collapsed(domain: Mapping[str, Any]) -> bool:
    """Return whether training ended in (nearly) empty answers where there were some before."""
    before, after = domain.get("before") or {}, domain.get("after") or {}
    due, made = after.get("num_gold", 0), after.get("num_predicted")
    return (
        made is not None
        and made < COLLAPSED_BELOW * due
        and before.get("num_predicted", 0) >= COLLAPSED_BELOW * due
    )
