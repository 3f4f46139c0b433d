"""Which confidence and which label rule are worth training on? Measured on real completions.

    python benchmarks/label_quality.py --model MODEL --data DIR/crossner_politics \
        --data DIR/crossner_science --type-name "politicalparty=political party" --out quality

MODEL is a model folder (after warm-up), or any reference that ccrl knows. For each data set, K
completions of its train and dev sentences are generated twice (type list shuffled for each sample,
and not), spans are scored for their types, and every metric and label rule is measured against
gold: ``quality.md`` and ``quality.json``. Completions stay in ``quality.work/``: a second call goes
on where the first one stopped, and a finished one takes seconds. Nothing is trained.

"Listed types" filters mentions of other types after decoding, "free types" keeps them. With
``--constrained`` a third sampling is held to the JSON format and the listed types while decoding
(``generation.constrained``, type list shuffled).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from label_quality_report import markdown

from ccrl_cli.cli.output import ConsoleReporter, Mode, plain
from ccrl_cli.config.schema import Profile
from ccrl_cli.core.agreement import Labeller
from ccrl_cli.core.alignment import Aligner, mention_key
from ccrl_cli.core.calibration import fit_combination
from ccrl_cli.core.combination import GeometricMean, combined
from ccrl_cli.core.curriculum import order_inputs
from ccrl_cli.core.discrimination import auroc_interval
from ccrl_cli.core.metrics import score_spans
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.statistics import Interval, bootstrap_interval, count_array, paired_bootstrap
from ccrl_cli.errors import CcrlError
from ccrl_cli.pipelines.common.domains import Domain, load_domain
from ccrl_cli.pipelines.common.manifest import hardware, package_versions
from ccrl_cli.pipelines.generation.generate import GenerateOptions, generate
from ccrl_cli.pipelines.generation.type_scores import score_types
from ccrl_cli.pipelines.labelling.labels import in_text
from ccrl_cli.pipelines.labelling.samples import SampleSet, load_samples
from ccrl_cli.pipelines.labelling.type_evidence import TypeEvidence, load_type_evidence
from ccrl_cli.records import Parse, PseudoLabel, Score

TOP = (0.1, 0.2, 0.4, 0.6, 1.0)
RULES = {
    "majority": {"rule": "majority"},
    "majority, clusters at F1 0.8": {"rule": "majority", "similarity": 0.8},
    "votes of 1/2": {"rule": "entity_vote", "positive": 0.5},
    "votes of 3/8": {"rule": "entity_vote", "positive": 0.375},
}
#: The same where completions say where entities are, and type scores what they are.
TYPED_RULES = {
    "majority, types by evidence": {"rule": "majority"},
    "spans of 1/2, types by evidence": {"rule": "entity_vote", "positive": 0.5},
    "spans of 3/8, types by evidence": {"rule": "entity_vote", "positive": 0.375},
    "spans of 1/4, types by evidence": {"rule": "entity_vote", "positive": 0.25},
}
QUESTIONS = ("answer", "question")
GEOMETRIC = GeometricMean({"entity_vote": 1.0, "type_posterior": 1.0})


@dataclass(frozen=True)
class Setup:
    """One data set under one way of sampling."""

    profile: Profile
    domain: Domain
    found: SampleSet
    evidence: Mapping[str, Mapping[str, Mapping[tuple[str, str], float]]]

    @property
    def keys(self) -> list[str]:
        """Inputs, in the order of the data."""
        return list(self.found.samples)

    def parses(self, key: str) -> list[Parse]:
        """Return the completions of an input."""
        return self.found.samples[key][0]


@dataclass(frozen=True)
class Row:
    """One rule and metric on one set."""

    sampling: str
    rule: str
    metric: str
    f1: Interval
    auroc: Interval | None
    top_f1: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    args = _arguments(arguments)
    reporter = ConsoleReporter(Mode())
    started = time.perf_counter()
    results: list[dict] = []
    try:
        for folder in args.data:
            results.append(_measure_set(Path(folder), args, reporter))
            text = _write(results, args, _words(arguments), time.perf_counter() - started)
    except CcrlError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    print(text, end="")
    return 0


def _write(results: list[dict], args: argparse.Namespace, words: list[str], seconds: float) -> str:
    """Write what was measured so far; return it as Markdown."""
    document = {
        "schema": 1,
        "command": " ".join(["python", "benchmarks/label_quality.py", *words]),
        "model": args.model,
        "adapter": args.adapter,
        "backend": args.backend,
        "num_completions": args.num_completions,
        "temperature": args.temperature,
        "seed": args.seed,
        "limit": args.limit,
        "hardware": hardware(),
        "versions": package_versions(),
        "seconds": round(seconds, 1),
        "sets": results,
    }
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(plain(document), indent=1) + "\n", "utf-8")
    text = markdown(plain(document))
    out.with_suffix(".md").write_text(text, "utf-8")
    return text


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="model folder or reference")
    parser.add_argument("--adapter", help="adapter folder, or builtin:NAME")
    parser.add_argument("--data", required=True, action="append", help="folder of a data set")
    parser.add_argument("--splits", default="train+dev", help="splits, joined by +")
    parser.add_argument("--type-name", action="append", default=[], help="identifier=prompt name")
    parser.add_argument("--template", default="compact", help="compact or instruct")
    parser.add_argument("-k", "--num-completions", type=int, default=16)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=96, help="inputs in flight")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="first so many sentences; for a trial")
    parser.add_argument("--backend", default="transformers", help="transformers or mock")
    parser.add_argument(
        "--constrained",
        action="store_true",
        help="sample a third time, held to the listed types (--backend vllm)",
    )
    parser.add_argument("--type-prior", default="matching", help="matching or content_free")
    parser.add_argument("--no-type-scores", action="store_true", help="leave type evidence out")
    parser.add_argument("--out", default="label-quality", help="result files without suffix")
    return parser.parse_args(arguments)


def _words(arguments: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if arguments is None else arguments)


# --- completions --------------------------------------------------------------------------------


def _measure_set(folder: Path, args: argparse.Namespace, reporter: ConsoleReporter) -> dict:
    """Generate, score and measure one data set."""
    seconds: dict[str, float] = {}
    setups: dict[str, Setup] = {}
    typed: dict[str, dict[str, Setup]] = {}
    for sampling in ("varied", "plain", *["constrained"] * args.constrained):
        profile = _profile(folder, args, sampling)
        begun = time.perf_counter()
        generate(profile, GenerateOptions(resume=True), reporter=reporter)
        seconds[f"generate, {sampling}"] = time.perf_counter() - begun
        evidence, typed[sampling] = {}, {}
        domain = load_domain(profile, "target")
        found = load_samples(profile, domain)
        if not args.no_type_scores:
            for question in QUESTIONS:
                asked = _with(profile, type_question=question)
                begun = time.perf_counter()
                score_types(asked, reporter=reporter)
                seconds[f"score types by {question}, {sampling}"] = time.perf_counter() - begun
                scores = load_type_evidence(asked, domain, found)
                evidence[question] = scores.posteriors(found.parses)
                typed[sampling][question] = _typed(asked, domain, found, scores)
        setups[sampling] = Setup(profile, domain, found, evidence)
    begun = time.perf_counter()
    varied = setups["varied"]
    rows = [row for name, setup in setups.items() for row in _rule_rows(name, setup, args.seed)]
    for name, by_question in typed.items():
        for question, setup in by_question.items():
            rules = {f"{rule} ({question})": options for rule, options in TYPED_RULES.items()}
            rows += _rule_rows(name, setup, args.seed, rules)
    result = {
        "data": folder.name,
        "digest": varied.domain.split("train").digest,
        "sentences": len(varied.keys),
        "types": list(varied.domain.labels),
        "type_names": dict(varied.domain.names.pairs),
        "sampling": {name: _sampling(setup) for name, setup in setups.items()},
        "rows": [asdict(row) for row in rows],
        "free_types": _free_types(varied, args.seed),
        "varied_against_plain": _compare(setups, args.seed),
        "entities": _entity_rows(varied, args.seed),
        "precision_by_votes": _precision_by_votes(varied),
    }
    seconds["measure"] = time.perf_counter() - begun
    return result | {"seconds": {name: round(value, 1) for name, value in seconds.items()}}


def _typed(profile: Profile, domain: Domain, found: SampleSet, scores: TypeEvidence) -> Setup:
    """Return the completions under the types that one question gives their spans."""
    same_spans = found.with_types(scores.chosen_types())
    question = profile.confidence.type_question
    return Setup(profile, domain, same_spans, {question: scores.posteriors(same_spans.parses)})


def _profile(folder: Path, args: argparse.Namespace, sampling: str) -> Profile:
    work = Path(f"{args.out}.work")
    data = {"path": str(folder), "train_split": args.splits, "max_train_samples": args.limit}
    names = dict(pair.split("=", 1) for pair in args.type_name)
    return Profile.model_validate(
        {
            "run": {"dir": str(work), "name": f"{folder.name}-{sampling}", "seed": args.seed},
            "model": {"name": args.model, "adapter": args.adapter},
            "data": {"source": {"path": str(folder)}, "target": data, "type_names": names},
            "confidence": {"type_prior": args.type_prior},
            "prompt": {"template": args.template, "shuffle_types": sampling != "plain"},
            "generation": {
                "backend": args.backend,
                "num_completions": args.num_completions,
                "temperature": args.temperature,
                "max_tokens": args.max_tokens,
                "batch_size": args.batch_size,
                "constrained": sampling == "constrained",
            },
        }
    )


def _with(profile: Profile, **confidence: str) -> Profile:
    section = profile.confidence.model_copy(update=confidence)
    return profile.model_copy(update={"confidence": section})


# --- labels -------------------------------------------------------------------------------------


def _labels(setup: Setup, metric: str, question: str, **options: object) -> list[PseudoLabel]:
    options = {"types": frozenset(setup.domain.labels), "negative": 0.125, **options}
    labeller = Labeller(metric=metric, combination=GEOMETRIC, **options)
    evidence, samples = setup.evidence.get(question, {}), setup.found.samples
    labels = [labeller(key, *samples[key], evidence.get(key)) for key in setup.keys]
    return [in_text(label, setup.found.examples[label.input_id]) for label in labels]


def _scores(setup: Setup, labels: Sequence[PseudoLabel]) -> list[tuple[Score, bool]]:
    """Return counts and exactness of each label against gold."""
    found = []
    for key, label in zip(setup.keys, labels, strict=True):
        example = setup.found.examples[key]
        alignment = Aligner(example).align(label.entities)
        compared = score_spans([example.gold or ()], [alignment], setup.domain.labels)
        found.append((compared.micro, compared.num_exact == 1))
    return found


def _rule_rows(
    sampling: str, setup: Setup, seed: int, rules: Mapping[str, Mapping] = RULES
) -> list[Row]:
    """Return a row for every rule and metric."""
    metrics = [("self_consistency", ""), ("semantic_entropy", ""), ("entity_vote", "")]
    first = next(iter(setup.found.samples.values()))[1]
    if all(value is not None for value in first):
        metrics.append(("logprob", ""))
    for question in setup.evidence:
        metrics += [("type_posterior", question), ("combined", question)]
    rows = []
    for rule, options in rules.items():
        values: dict[str, list[float]] = {}
        scores: list[tuple[Score, bool]] = []
        for metric, question in metrics:
            labels = _labels(setup, metric, question, **options)
            scores = scores or _scores(setup, labels)
            name = {"combined": "votes x type_posterior"}.get(metric, metric)
            values[name + (f" ({question})" if question else "")] = [
                label.confidence for label in labels
            ]
        if fitted := _cross_fitted(setup, values, scores, seed):
            values["logistic of all (cross-fitted)"] = fitted
        rows += [
            _row(sampling, rule, name, found, (setup.keys, scores), seed)
            for name, found in values.items()
        ]
    return rows


def _row(
    sampling: str,
    rule: str,
    metric: str,
    values: Sequence[float],
    judged: tuple[Sequence[str], Sequence[tuple[Score, bool]]],
    seed: int,
) -> Row:
    keys, scores = judged
    counts = count_array(score for score, _ in scores)
    by_key = dict(zip(keys, (score for score, _ in scores), strict=True))
    order = order_inputs(dict(zip(keys, values, strict=True)), "confidence")
    top = {
        f"{share:g}": sum(
            (by_key[key] for key in order[: max(1, round(share * len(order)))]), Score()
        ).f1
        for share in TOP
    }
    rng = np.random.default_rng(derive_seed(seed, "quality", rule))
    label_f1 = bootstrap_interval(counts, rng)
    auroc = auroc_interval(np.clip(values, 0, 1), [float(exact) for _, exact in scores], rng)
    return Row(sampling, rule, metric, label_f1, auroc, top)


def _cross_fitted(
    setup: Setup,
    values: Mapping[str, Sequence[float]],
    scores: Sequence[tuple[Score, bool]],
    seed: int,
) -> list[float] | None:
    """Return a logistic combination of all metrics, each half predicted by a fit of the other."""
    # The core knows metrics by their own names: one question's type evidence is enough.
    short = {name.split(" (")[0]: found for name, found in values.items()}
    short.pop("votes x type_posterior", None)
    exact = np.array([float(right) for _, right in scores])
    half = np.array([derive_seed(seed, "half", key) % 2 for key in setup.keys])
    predicted = np.zeros(len(half))
    for side in (0, 1):
        fit_on, apply_to = half == side, half != side
        if not 0 < exact[fit_on].sum() < fit_on.sum():
            return None
        fit = fit_combination(
            {name: np.array(found)[fit_on] for name, found in short.items()}, exact[fit_on]
        )
        predicted[apply_to] = combined(
            {name: np.array(found)[apply_to] for name, found in short.items()}, fit
        )
    return predicted.tolist()


def _compare(setups: Mapping[str, Setup], seed: int) -> dict[str, dict]:
    """Return label F1 of varied minus plain sampling, paired by sentence, for each rule."""
    rng = np.random.default_rng(derive_seed(seed, "paired"))
    found = {}
    for rule, options in RULES.items():
        counts = [
            count_array(s for s, _ in _scores(setup, _labels(setup, "entity_vote", "", **options)))
            for setup in (setups["varied"], setups["plain"])
        ]
        found[rule] = asdict(paired_bootstrap(*counts, rng))
    return found


# --- samples, types, entities -------------------------------------------------------------------


def _sampling(setup: Setup) -> dict[str, float]:
    """Return what single samples are like: F1, best of K, shares of what is wrong with them."""
    single, best = Score(), Score()
    counts = dict.fromkeys(("completions", "invalid", "empty", "mentions", "unknown", "lost"), 0)
    known = frozenset(setup.domain.labels)
    for key in setup.keys:
        example = setup.found.examples[key]
        aligner, gold, scores = Aligner(example), example.gold or (), {}
        for parse in setup.parses(key):
            counts["completions"] += 1
            counts["invalid"] += parse.outcome == "invalid"
            counts["empty"] += parse.outcome != "invalid" and not parse.entities
            counts["mentions"] += len(parse.entities)
            counts["unknown"] += sum(e.type not in known for e in parse.entities)
            if parse.entities not in scores:
                aligned = aligner.align(parse.entities)
                compared = score_spans([gold], [aligned], setup.domain.labels)
                scores[parse.entities] = (compared.micro, len(aligned.hallucinated))
            single += scores[parse.entities][0]
            counts["lost"] += scores[parse.entities][1]
        best += max((score for score, _ in scores.values()), key=lambda score: score.f1)
    mentions = max(1, counts["mentions"])
    return {
        "single_f1": single.f1,
        "best_of_k_f1": best.f1,
        "invalid_share": counts["invalid"] / counts["completions"],
        "empty_share": counts["empty"] / counts["completions"],
        "unknown_type_share": counts["unknown"] / mentions,
        "hallucinated_share": counts["lost"] / mentions,
    }


def _free_types(setup: Setup, seed: int) -> dict[str, dict]:
    """Return label F1 with mentions of other types kept, and filtered after decoding."""
    rng = np.random.default_rng(derive_seed(seed, "free"))
    found = {}
    for rule, options in RULES.items():
        tables = [
            count_array(
                s for s, _ in _scores(setup, _labels(setup, "entity_vote", "", **options, **more))
            )
            for more in ({}, {"types": None})
        ]
        listed, free = (asdict(bootstrap_interval(table, rng)) for table in tables)
        found[rule] = {
            "listed": listed,
            "free": free,
            "difference": asdict(paired_bootstrap(*tables, rng)),
        }
    return found


def _entity_rows(setup: Setup, seed: int) -> list[dict]:
    """Return how well votes and type evidence tell right entities, spans and types."""
    rng = np.random.default_rng(derive_seed(seed, "entities"))
    rows = []
    columns: dict[str, list[float]] = {"votes": []}
    columns |= {f"type_posterior ({question})": [] for question in setup.evidence}
    right, span_right = [], []
    for key, label in zip(setup.keys, _labels(setup, "entity_vote", ""), strict=True):
        example = setup.found.examples[key]
        gold = {(mention_key(e.text), e.type) for e in example.gold_entities()}
        spans = {text for text, _ in gold}
        for entity, share in label.votes:
            mention = (mention_key(entity.text), entity.type)
            columns["votes"].append(share)
            for question, evidence in setup.evidence.items():
                columns[f"type_posterior ({question})"].append(evidence[key][mention])
            right.append(float(mention in gold))
            span_right.append(float(mention[0] in spans))
    for name in list(columns)[1:]:
        product = np.sqrt(np.array(columns["votes"]) * np.array(columns[name]))
        columns[f"votes x {name}"] = product.tolist()
    chosen = np.array(span_right) == 1
    for name, values in columns.items():
        scores = np.array(values)
        rows.append(
            {
                "evidence": name,
                "entity": _auroc(scores, np.array(right), rng),
                "span": _auroc(scores, np.array(span_right), rng),
                "type": _auroc(scores[chosen], np.array(right)[chosen], rng),
            }
        )
    return rows


def _auroc(scores: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> dict | None:
    found = auroc_interval(scores, right, rng, num_resamples=300) if len(scores) else None
    return None if found is None else asdict(found)


def _precision_by_votes(setup: Setup) -> list[dict]:
    """Return the precision of entities by the number of completions that hold them."""
    found: dict[int, list[bool]] = {}
    for key, label in zip(setup.keys, _labels(setup, "entity_vote", ""), strict=True):
        gold = {(mention_key(e.text), e.type) for e in setup.found.examples[key].gold_entities()}
        for entity, share in label.votes:
            number = round(share * label.num_completions)
            found.setdefault(number, []).append((mention_key(entity.text), entity.type) in gold)
    return [
        {"votes": number, "entities": len(hits), "precision": sum(hits) / len(hits)}
        for number, hits in sorted(found.items())
    ]


if __name__ == "__main__":
    raise SystemExit(main())
