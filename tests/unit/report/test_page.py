"""The page: what stands on it, that hostile texts stay texts, and how a browser shows it."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("matplotlib", "jinja2")):
    pytest.skip("needs matplotlib and jinja2", allow_module_level=True)

from ccrl_cli.core.statistics import Interval, paired_trainings
from ccrl_cli.errors import IntegrityError, PreconditionError
from ccrl_cli.findings import Caveat, CaveatKind, Finding
from ccrl_cli.findings.comparisons import ComparedArms, PairwiseComparison, TrainingPair
from ccrl_cli.pipelines.report import report
from ccrl_cli.records import Entity
from ccrl_cli.report.examples import choose_examples
from ccrl_cli.report.figures import moving_mean
from ccrl_cli.report.page import render_page
from ccrl_cli.report.tables import arm_table, score_table, type_table
from ccrl_cli.report.values import RunFacts
from ccrl_cli.reporting import NullReporter
from ccrl_cli.store.predictions import read_predictions
from made_run import make_run

FIGURES = (
    *("scores", "change", "reward", "reward-overlap", "kl", "open-share"),
    *("confidence", "quality", "reliability", "risk"),
)
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Checker(HTMLParser):
    """Collects the elements of a page and checks that they nest."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr", "path", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder):
    return make_run(folder, "demo")


@pytest.fixture(scope="module")
def page(run):
    result = report([run], reporter=NullReporter())
    return result, Path(result.path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def arms(folder):
    """Two arms of two seeds."""
    noise = {"curriculum": 0.15, "naive-rl": 0.35}
    return [
        make_run(folder, f"{arm}-{seed}", arm=arm, seed=seed, noise={("target", "after"): rate})
        for arm, rate in noise.items()
        for seed in (0, 1)
    ]


def facts(run_path: Path) -> RunFacts:
    return RunFacts(
        run_path.name,
        json.loads((run_path / "manifest.json").read_text(encoding="utf-8")),
        json.loads((run_path / "evaluation.json").read_text(encoding="utf-8")),
    )


# --- content ------------------------------------------------------------------------------------


def test_one_page_with_every_figure_and_no_request(page, run):
    result, html = page
    assert Path(result.path) == run / "report.html"
    assert result.figures == FIGURES
    assert not result.reportable
    found = checked(html)
    assert [a["id"] for t, a in found.elements if t == "figure"] == [f"figure-{f}" for f in FIGURES]
    # Nothing that a browser would fetch: no address in any attribute that loads.
    for tag, attributes in found.elements:
        for name in ("src", "href", "data", "action", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, name, value)
    style = "".join(re.findall(r"<style.*?</style>", html, re.DOTALL))
    assert "@import" not in style
    assert not re.search(r"url\((?!#)", html)


def test_the_headline_is_the_answer_of_the_evaluation(page, run):
    result, html = page
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    target = evaluation["domains"]["target"]
    before, after = (f"{100 * target[when]['f1']:.1f}" for when in ("before", "after"))
    assert result.finding.text.startswith(f"Target F1 rose from {before} to {after}")
    assert f'<p class="headline">{result.finding.text}</p>' in html
    assert "Not reportable" in html
    assert "proves little" in html


def test_identifiers_are_unique_and_references_resolve(page):
    found = checked(page[1])
    names = [a["id"] for _, a in found.elements if a.get("id")]
    assert len(names) == len(set(names))
    used = {a["href"][1:] for _, a in found.elements if (a.get("href") or "").startswith("#")}
    used |= set(re.findall(r"url\(#([^)]+)\)", page[1]))
    assert used <= set(names)


def test_figures_have_words_for_readers_who_do_not_see_them(page):
    found = checked(page[1])
    labels = [a for t, a in found.elements if t == "svg"]
    assert len(labels) == len(FIGURES)
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in labels)
    # Axes are labelled, with units.
    text = " ".join(found.text)
    for words in (
        "training step",
        "nats a token",
        "micro F1 (%)",
        "coverage: the surest inputs (%)",
    ):
        assert words in text


def test_figures_take_their_colours_from_the_theme(page):
    for drawing in re.findall(r"<svg.*?</svg>", page[1], re.DOTALL):
        assert "var(--" in drawing
        assert not re.search(r"(fill|stroke): #", drawing)


def test_examples_show_what_training_fixed_first(run):
    before = read_predictions(run / "predictions-target-before.jsonl")
    after = read_predictions(run / "predictions-target-after.jsonl")
    fixed, broken, same = choose_examples(before, after, limit=3)
    assert fixed.num_sentences == len(after) == 100
    old = {row.input_id: row.judgement().f1 for row in before}
    new = {row.input_id: row.judgement().f1 for row in after}
    gains = [new[e.input_id] - old[e.input_id] for e in fixed.examples]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] == max(new[key] - old[key] for key in old)
    assert fixed.total == sum(new[key] > old[key] for key in old)
    assert broken.total == sum(new[key] < old[key] for key in old)
    assert same.total == sum(new[key] == old[key] < 1 for key in old)
    assert [row.title for row in fixed.examples[0].rows] == ["gold", "before", "after"]


def test_saying_nothing_is_no_improvement(run):
    """An empty answer has fewer mistakes than a wrong one, and the same F1 of 0."""
    (row, *_) = [r for r in read_predictions(run / "predictions-target-after.jsonl") if r.gold]
    wrong = replace(row, predicted=(), hallucinated=(Entity("x", "rocket"),) * 3)
    silent = replace(row, predicted=())
    assert [g.total for g in choose_examples([wrong], [silent])] == [0, 0, 1]
    unread = replace(row, gold=(), predicted=(), outcome="invalid")
    read = replace(unread, outcome="valid")
    assert [g.total for g in choose_examples([unread], [read])] == [1, 0, 0]


def test_tables_hold_the_numbers_of_the_evaluation(run):
    values = facts(run)
    target = values.domain("target")
    first = score_table(values).rows[0]
    assert first[1].text == f"{100 * target['before']['f1']:.1f}"
    assert first[3].tone == "up"
    types = type_table(target)
    assert [int(row[1].text) for row in types.rows] == sorted(
        (part["gold"] for part in target["after"]["per_type"].values()), reverse=True
    )


def test_types_that_the_model_made_up_share_a_row(run):
    target = json.loads(json.dumps(facts(run).domain("target")))
    made_up = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "gold": 0, "predicted": 2}
    target["after"]["per_type"] |= {f"thing {i}": made_up for i in range(5)}
    target["before"]["per_type"] |= {"thing 9": made_up}
    rows = type_table(target).rows
    assert [cell.text for cell in rows[-1][:3]] == ["6 other types, without gold", "0", "10"]
    assert not any(row[0].text.startswith("thing") for row in rows)


def test_moving_mean_by_hand():
    # Window 3: ends have two values.
    assert moving_mean([1.0, 2.0, 6.0, 3.0], 3) == [1.5, 3.0, 11 / 3, 4.5]
    assert moving_mean([1.0, 5.0], 1) == [1.0, 5.0]


# --- several runs -------------------------------------------------------------------------------


def test_arms_are_compared(arms, tmp_path):
    result = report(arms, output=tmp_path / "all.html", reporter=NullReporter())
    html = (tmp_path / "all.html").read_text(encoding="utf-8")
    checked(html)
    assert {"arms", "scatter"} <= set(result.figures)
    assert result.finding.text == (
        "Whether the curriculum beats naive RL cannot be told from these runs: not both are "
        "finished runs of `ccrl baselines`."
    )
    assert result.finding.caveats[0].kind == CaveatKind.other_run
    assert result.finding.caveats[0].text.startswith("curriculum-0: Target F1")
    assert "4 runs" in html


def test_arm_table_has_mean_and_spread_over_seeds(arms):
    runs = [facts(path) for path in arms]
    row = arm_table(runs).rows[0]
    a, b = (run.f1("target", "after") for run in runs[:2])
    assert [cell.text for cell in row[:2]] == ["curriculum", "2"]
    assert row[2].text == f"{50 * (a + b):.1f}"
    # Sample standard deviation of two values: their distance over the root of two.
    assert row[2].detail == f"± {100 * abs(a - b) / 2**0.5:.1f}"


def test_arms_stand_by_every_way_of_decoding(arms):
    runs = [facts(path) for path in arms]
    for run in runs:
        run.evaluation["decode"] = "typed"
        run.evaluation["domains"]["target"]["decoded"] = {"typed": {"after": {"f1": 0.9}}}
    alone = replace(runs[2], manifest={**runs[2].manifest, "arm": "labeller"})
    table = arm_table([*runs, alone])
    assert table.columns[:5] == (
        "arm", "runs", "target F1 %, greedy", "target F1 %, typed", "source F1 %, greedy"
    )  # fmt: skip
    assert table.rows[0][3].text == "90.0"
    labeller = table.rows[-1]
    # What the labeller ends with is not greedy, and is its own whatever the profile says.
    assert labeller[2].text == "–"
    assert labeller[3].text == f"{100 * runs[2].f1('target', 'after'):.1f}"


def test_what_the_labeller_alone_gives_stands_on_the_page(run):
    values = facts(run)
    target = values.evaluation["domains"]["target"]
    target["decoded"] = {
        "vote": {"before": {"f1": 0.489, "num_sentences": 100}, "after": {"f1": 0.52}}
    }
    target["over_labeller"] = {"value": 0.031, "low": -0.01, "high": 0.07}
    values.evaluation["decode"] = "vote"
    page = render_page([values], title="t", created="now")
    checked(page.html)
    assert page.finding.text.startswith("The untrained labeller alone has a target F1 of 48.9")
    assert "Labeller alone F1 %" in page.html
    assert "training adds +3.1 points (−1.0 to +7.0), vote answers" in page.html
    assert "Micro F1, decoded as labels are made" in page.html


def test_rounds_have_a_line_each(tmp_path):
    path = make_run(tmp_path, "rounds-run")
    make_run(path / "rounds", "1")
    make_run(path / "rounds", "2", seed=1)
    rows = [{"round": 1, "steps": 12, "agreement": None, "changed_share": None},
            {"round": 2, "steps": 12, "agreement": 0.75, "changed_share": 0.4}]  # fmt: skip
    place = path / "rounds.json"
    place.write_text(json.dumps({"rounds": rows, "kept": [2]}), encoding="utf-8")
    (path / "rounds" / "1" / "evaluation.json").unlink()
    told = NullReporter()
    result = report([path], reporter=told)
    html = Path(result.path).read_text(encoding="utf-8")
    checked(html)
    assert "Rounds: the adapted policy labels again" in html
    body = html.split("Rounds: the adapted")[1].partition("<tbody>")[2]  # named before and after
    found = [re.findall(r'(?:scope="row">|class="value">)([^<]+)<', row)
             for row in body.split("</tr>")[:2]]  # fmt: skip
    assert [row[:2] for row in found] == [["1", "12"], ["2", "12"]]
    assert float(found[0][2]) > 0
    assert float(found[1][2]) > 0
    assert found[0][3:] == ["–", "–", "–", "–"]  # nothing before it, and not scored
    assert found[1][3:5] == ["75.0", "40.0"]
    after = facts(path).domain("target")["after"]["f1"]
    assert found[1][5] == f"{100 * after:.1f}"  # the run's own weights
    assert told.warnings == []


def test_a_comparison_with_intervals_is_the_headline(arms):
    few = Caveat(CaveatKind.few_sentences, "Only 3 sentences were scored.")
    said = Finding("It cannot be told here.", "open", (few,))
    page = render_page(
        [facts(path) for path in arms], title="t", created="now", compared=ComparedArms(said)
    )
    checked(page.html)
    assert page.finding.text == "It cannot be told here."
    assert "Target F1" in page.finding.caveats[0].text
    assert page.finding.caveats[1] == few
    # What a comparison says of all its runs is not said again of one of them.
    assert [caveat.kind for caveat in page.finding.caveats] == [
        CaveatKind.other_run, CaveatKind.few_sentences, CaveatKind.no_labeller
    ]  # fmt: skip
    assert "It cannot be told here." in page.html


def test_tested_differences_stand_on_the_page(arms):
    def pair(gaps, domain, p_holm):
        return PairwiseComparison(
            domain, "vote", "curriculum", "naive-rl",
            tuple(TrainingPair(seed, "w") for seed in range(len(gaps))),
            paired_trainings(gaps, 0.003, 100), Interval(0.03, 0.01, 0.05, 0.95, 9), p_holm,
        )  # fmt: skip

    found = ComparedArms(
        Finding("Told."),
        (pair([0.02, 0.03, 0.04, 0.03, 0.03], "target", 0.0004), pair([0.1, 0.1], "source", None)),
    )
    page = render_page([facts(p) for p in arms], title="t", created="now", compared=found)
    text = " ".join(" ".join(checked(page.html).text).split())
    # s = 0.00707, s^2/5 + 0.003^2 = 1.9e-5, root 0.00436; t of 38 degrees about 2.03: 0.9.
    assert "+3.0 over trainings: +2.1 to +3.9" in text
    assert "5 5 < 0.001 +1.0 to +5.0" in text
    assert "+10.0 over trainings: cannot be told 2 2 – +1.0 to +5.0" in text
    assert page.html.count('<td class="up"><span class="value">+3.0') == 1


def test_an_arm_without_training_ends_where_it_began(arms):
    untrained = facts(arms[2])
    domains = untrained.evaluation["domains"]
    for domain in domains.values():
        domain["after"] = domain["delta_f1"] = None
    untrained.evaluation["forgetting"] = None
    zero = replace(untrained, manifest={**untrained.manifest, "arm": "zero-shot"})
    page = render_page([facts(arms[0]), zero], title="t", created="now")
    checked(page.html)
    row = arm_table([zero]).rows[0]
    assert row[2].text == f"{100 * domains['target']['before']['f1']:.1f}"
    assert [cell.text for cell in row[4:6]] == ["–", "–"]
    assert "scatter" in page.figures  # of the run that has both sides


# --- what is missing, damaged or hostile ----------------------------------------------------------


def test_a_run_without_evaluation_or_store_still_has_a_page(folder, tmp_path):
    source = make_run(folder, "bare")
    moved = tmp_path / "moved"
    shutil.copytree(source, moved)
    for name in ("evaluation.json", "completions.jsonl", "predictions-target-after.jsonl"):
        (moved / name).unlink()
    told = NullReporter()
    result = report([moved], reporter=told)
    assert "has not been evaluated" in result.finding.text
    assert set(result.figures) == {"reward", "reward-overlap", "kl", "open-share"}
    assert any("no completion store" in warning for warning in told.warnings)
    assert any("evaluation.json" in warning for warning in told.warnings)


def test_a_moved_run_finds_its_own_store(run, tmp_path):
    shutil.copytree(run, tmp_path / "elsewhere")
    told = NullReporter()
    assert report([tmp_path / "elsewhere"], reporter=told).figures == FIGURES
    assert told.warnings == []


def test_scores_on_mock_labels_are_not_reportable(folder):
    from ccrl_cli.store.runs import RunDirectory

    path = make_run(folder, "mocked")
    place = path / "evaluation.json"
    scores = json.loads(place.read_text(encoding="utf-8"))
    place.write_text(json.dumps({**scores, "reportable": True}), encoding="utf-8")
    assert report([path], reporter=NullReporter()).reportable
    RunDirectory(path).mark_done("train", "0", result={"reportable": False})
    assert not report([path], reporter=NullReporter()).reportable


def test_no_run_and_a_damaged_one(run, tmp_path):
    with pytest.raises(PreconditionError, match=r"no manifest\.json"):
        report([tmp_path], reporter=NullReporter())
    shutil.copytree(run, tmp_path / "damaged")
    with (tmp_path / "damaged" / "predictions-source-after.jsonl").open("a") as stream:
        stream.write('{"text": 1}\n')
    with pytest.raises(IntegrityError, match="is no prediction"):
        report([tmp_path / "damaged"], reporter=NullReporter())


def hostile_run(run: Path, target: Path) -> Path:
    """Copy a run and put markup wherever a text, a type or a name can stand."""
    shutil.copytree(run, target)
    for when in ("before", "after"):
        place = target / f"predictions-target-{when}.jsonl"
        rows = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            row["text"] += EVIL
            row["hallucinated"] = [{"text": EVIL, "type": EVIL}]
            for span in row["gold"] + row["predicted"]:
                span["type"] = EVIL
        place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    place = target / "manifest.json"
    manifest = json.loads(place.read_text(encoding="utf-8"))
    manifest["arm"] = manifest["profile"]["model"]["name"] = manifest["git"] = EVIL
    manifest["git"] = {"commit": EVIL, "changed": True}
    manifest["origins"][f"data.type_names.{EVIL}"] = EVIL
    place.write_text(json.dumps(manifest), encoding="utf-8")
    place = target / "evaluation.json"
    evaluation = json.loads(place.read_text(encoding="utf-8"))
    for domain in evaluation["domains"].values():
        domain["data"] = domain["mode"] = EVIL
        domain["after"]["per_type"][EVIL] = next(iter(domain["after"]["per_type"].values()))
    place.write_text(json.dumps(evaluation), encoding="utf-8")
    return target


def test_hostile_texts_stay_texts(run, tmp_path):
    target = hostile_run(run, tmp_path / "evil")
    result = report([target], title=EVIL, reporter=NullReporter())
    found = checked(Path(result.path).read_text(encoding="utf-8"))
    assert sum(tag == "script" for tag, _ in found.elements) == 1
    assert not any(tag == "img" for tag, _ in found.elements)
    assert not any(name.startswith("on") for _, a in found.elements for name in a)
    assert any(EVIL in text for text in found.text)


def test_half_characters_do_not_stop_the_page(run, tmp_path):
    target = tmp_path / "odd"
    shutil.copytree(run, target)
    for when in ("before", "after"):
        place = target / f"predictions-target-{when}.jsonl"
        rows = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps({**row, "text": row["text"] + " \ud800 \x00"}) + "\n" for row in rows]
        place.write_text("".join(lines), encoding="utf-8")
    result = report([target], reporter=NullReporter())
    assert "\ufffd" in Path(result.path).read_text(encoding="utf-8")


def test_a_page_needs_a_run():
    with pytest.raises(ValueError, match="needs a run"):
        render_page([], title="t", created="now")


# --- in a browser ---------------------------------------------------------------------------------

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")

PROBE = """
<script>
window.onerror = function (m) { document.title = "error " + m; };
var root = document.documentElement, button = document.getElementById("theme"), seen = [];
function page() { return getComputedStyle(document.body).backgroundColor; }
seen.push(page());
for (var i = 0; i < 3; i++) { button.click(); seen.push(root.dataset.theme + " " + page()); }
var small = [].filter.call(document.querySelectorAll("svg.figure"), function (s) {
  var box = s.getBoundingClientRect(); return box.width < 200 || box.height < 80; }).length;
root.setAttribute("data-seen", JSON.stringify({ colours: seen, small: small,
  overflow: root.scrollWidth - root.clientWidth }));
</script>
"""


def browse(path: Path, tmp_path: Path, *more: str) -> tuple[str, str]:
    """Return what a headless browser writes to stdout, and what it logs of the page's console."""
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--disable-sync", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'user'}"),
            *more,
            path.as_uri(),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return done.stdout, "\n".join(x for x in done.stderr.splitlines() if "CONSOLE" in x)


@browser
@pytest.mark.parametrize("size", ["390,3000", "1280,3000"])
def test_a_browser_shows_the_page(page, tmp_path, size):
    dom, console = browse(Path(page[0].path), tmp_path, f"--window-size={size}", "--dump-dom")
    assert console == ""
    assert dom.count('<svg class="figure"') == len(FIGURES)
    assert "◐ auto" in dom  # the script ran


@browser
@pytest.mark.parametrize("size", ["390,1000", "1280,1000"])
def test_the_toggle_changes_the_colours_and_nothing_overflows(page, tmp_path, size):
    html = re.sub(r"<meta http-equiv=[^>]+>", "", page[1]).replace("</body>", PROBE + "</body>")
    copy = tmp_path / "probe.html"
    copy.write_text(html, encoding="utf-8")
    dom, console = browse(copy, tmp_path, f"--window-size={size}", "--dump-dom")
    assert console == ""
    seen = json.loads(re.search(r'data-seen="([^"]+)"', dom)[1].replace("&quot;", '"'))
    light, dark = "rgb(246, 247, 248)", "rgb(18, 20, 23)"
    assert seen["colours"][1:3] == [f"light {light}", f"dark {dark}"]
    assert seen["colours"][3] == f"undefined {seen['colours'][0]}"
    assert seen["small"] == 0
    assert seen["overflow"] == 0


@browser
def test_a_browser_runs_no_hostile_text(run, tmp_path):
    target = hostile_run(run, tmp_path / "evil")
    path = Path(report([target], title=EVIL, reporter=NullReporter()).path)
    dom, console = browse(path, tmp_path, "--dump-dom")
    assert console == ""
    assert "<img" not in dom


@browser
def test_a_screenshot_is_not_blank(page, tmp_path):
    from matplotlib.image import imread

    shot = tmp_path / "page.png"
    browse(Path(page[0].path), tmp_path, "--window-size=800,1400", f"--screenshot={shot}")
    pixels = imread(shot)
    assert pixels.shape[:2] == (1400, 800)
    assert pixels.std() > 0.05
