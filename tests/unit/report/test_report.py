import copy
import functools
import itertools
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from minidisc.report import content, formats, plots, write_report

VOID = {"meta", "br", "hr", "img", "link", "input"}
LAYERS = 3


class Page(HTMLParser):
    """The page's elements; fails on tags that do not balance."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.attributes, self.text = [], [], [], [], []
        self.tables, self.lists = {}, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        attrs = dict(attrs)
        if tag == "table":
            self.table = self.tables[attrs["id"]] = []
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")
        elif tag == "data":
            self.table_value(attrs["value"])

    def table_value(self, value):
        if "table" in self.open:
            self.table[-1][-1] = float(value)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and {"td", "th"} & set(self.open) and isinstance(self.table[-1][-1], str):
            self.table[-1][-1] += data

    def _note(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def rows(self, table):
        """Rows of numbers, without the header."""
        return [row for row in self.tables[table] if any(isinstance(cell, float) for cell in row)]


def sizes(share):
    return {"prunable": int(900_000 * share), "without_embeddings": int(900_000 * share) + 1_234, "all": 2_000_000}


def scores(names, value):
    each = {name: value + 0.01 * i for i, name in enumerate(names)}
    return {**each, "metric": sum(each.values()) / len(each)}


def candidate(stage, sparsity, metrics, chosen=False):
    return {
        "stage": stage,
        "sparsity": sparsity,
        "heads": [stage] * LAYERS,
        "neurons": [int(100 * (1 - sparsity))] * LAYERS,
        "sizes": sizes(1 - sparsity),
        "metrics": metrics,
        "metric": metrics["metric"],
        "interval": [metrics["metric"] - 0.05 * sparsity, metrics["metric"] + 0.03],
        "tradeoff": metrics["metric"] + 0.2 * sparsity,
        "probability": 0.1 + 0.5 * chosen + 0.1 * (sparsity == 0.9),
        "step": 17,
        "chosen": chosen,
    }


def model(path, sparsity, names, value):
    both = {"metrics": scores(names, value), "selection_metrics": scores(names, value + 0.1234)}
    widths = {"heads": [int(10 * (1 - sparsity))] * LAYERS, "neurons": [int(100 * (1 - sparsity))] * LAYERS}
    return {"path": path, "sparsity": sparsity, "sizes": sizes(1 - sparsity), **widths, **both}


def make(stages=2, schedule="minidisc", names=("accuracy",), base=0.8, kind="classification", chosen=(0.6, 0.8)):
    """Results as `minidisc.pipeline` makes them."""
    tables, left = [], [0.5, 0.6, 0.7, 0.8, 0.9]
    sandwiches = max(1, stages - 1) if schedule == "minidisc" else 0
    for stage in range(1, sandwiches + 1):
        pick = chosen[stage - 1] if stages > 1 else None
        tables.append([candidate(stage, s, scores(names, base - max(0, s - (pick or s))), s == pick) for s in left])
        left = [s for s in left if pick is None or s > pick]
    picked = [row for table in tables for row in table if row["chosen"]]
    history = {
        f"sandwich-{i}": [
            {"step": step, "metrics": {formats.percent(r["sparsity"]): r["metrics"] for r in table}}
            for step in (0, 8, 17)
        ]
        for i, table in enumerate(tables, start=1)
    }
    if stages > 1 or schedule == "direct":
        history["student"] = [{"step": step, "metrics": {"90 %": scores(names, base)}} for step in (0, 20)]
    cost = {"steps": 1_234, "flops": 5.3e12, "seconds": 75.5, "cpu_seconds": 70.25, "peak_memory": 2_056_634_368}
    picks = [formats.assistant_name(i, len(picked)) for i in range(1, len(picked) + 1)]
    first = [formats.percent(row["sparsity"]) for row in tables[0]] if tables else []
    times = {
        name: {
            "milliseconds": 9.0 + i,
            "processor_milliseconds": 8.0 + i,
            "low": 7.0 + i,
            "high": 9.5 + i,
            "speedup": 1.5,
        }
        for i, name in enumerate(["teacher", *picks, "student", *first])
    }
    return {
        "latency": {"batch_size": 1, "length": 27, "busy": False, "networks": times},
        "task": {"name": "glue/x", "kind": kind, "metrics": list(names)},
        "rows": {
            name: {"source": f"{name} file", "count": count}
            for name, count in (("train", 4_321), ("calibration", 1_024), ("selection", 160), ("validation", 1_426))
        },
        "teacher": model("some/teacher", 0.0, names, base),
        "assistants": [model(f"run/{r['sparsity']}", r["sparsity"], names, base) for r in picked],
        "student": model("run/student", 0.9, names, base - 0.05),
        "candidates": [row for table in tables for row in table],
        "history": history,
        "cost": {
            "total": cost,
            "stages": {name: cost for name in ("importance", *history)},
            "all_trials_flops": 1.06e13 if sandwiches == 1 and stages > 1 else None,
        },
        "machine": "processor, 2 cores",
        "versions": {"torch": "2.13.0"},
        "warnings": [],
        "settings": {
            "tradeoff_lambda": 0.2,
            "schedule": schedule,
            "assistants": None,
            "stages": stages,
            "select_on": "train",
            "grid": (0.5, 0.6),
            "train_file": None,
        },
    }


CASES = {
    "one assistant": make(),
    "two assistants": make(stages=3),
    "one stage": make(stages=1),
    "direct": make(schedule="direct"),
    "regression": make(names=("pearson", "spearman"), kind="regression", base=-0.05),
}


def render(results, folder):
    path = folder / "report.html"
    write_report(path, results)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Gives the text of a case's report; each is written once, since plots take most of the time."""
    folder = tmp_path_factory.mktemp("report")
    return functools.cache(lambda name: render(CASES[name], folder))


@pytest.fixture(params=CASES)
def case(request, pages):
    text = pages(request.param)
    return CASES[request.param], text, Page(text)


@pytest.fixture
def usual(pages):
    text = pages("one assistant")
    return CASES["one assistant"], text, Page(text)


def test_the_page_is_well_formed_and_self_contained(case):
    _, text, page = case
    assert text.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    links = {value for _, name, value in page.attributes if name in ("href", "src", "srcset", "data", "action")}
    assert {link for link in links if not link.startswith("#")} == {"https://arxiv.org/abs/2205.14570"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert "http://" not in text
    assert text.count("https://") == 1
    assert "src=" not in text
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert not re.findall(r"fetch|XMLHttp|import|eval|innerHTML", text[text.index("<script>") :])
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text
    assert not re.findall(r"#0000[01][0-9a-f]\b", text), "a placeholder colour is left"


def test_every_series_has_a_colour_in_light_and_dark(case):
    _, text, _ = case
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    for name in used - {"--share"}:
        assert len(re.findall(rf"{name}: #[0-9a-f]{{6}};", text)) == 2, name


def test_the_tables_hold_the_numbers_given(case):
    results, _, page = case
    keys = [*results["task"]["metrics"], *(["metric"] if len(results["task"]["metrics"]) > 1 else [])]
    models = [results["teacher"], *results["assistants"], results["student"]]
    rows = page.rows("models")
    expected = [[m["sparsity"] for m in models]]
    expected += [[m[field][k] for m in models] for field in ("metrics", "selection_metrics") for k in keys]
    expected += [[m["sizes"][k] for m in models] for k in ("prunable", "without_embeddings", "all")]
    assert [row[1:] for row in rows] == expected

    found = []
    for stage in sorted({c["stage"] for c in results["candidates"]}):
        found += page.rows(f"candidates-{stage}-table")
    assert found == [
        [
            c["sparsity"],
            *(c["metrics"][k] for k in keys),
            *c["interval"],
            c["tradeoff"],
            c["probability"],
            c["step"],
            *c["sizes"].values(),
        ]
        for c in results["candidates"]
    ]
    assert [row[2] for row in page.rows("rows")] == [row["count"] for row in results["rows"].values()]
    cost = list(results["cost"]["total"].values())
    assert [row[1:] for row in page.rows("cost")] == [cost] * (len(results["cost"]["stages"]) + 1)


def test_every_network_stands_with_what_it_takes(case):
    results, text, page = case
    models = [results["teacher"], *results["assistants"], results["student"]]
    roles = [
        "teacher",
        *(["assistant"] if len(models) == 3 else ["assistant 1", "assistant 2"][: len(models) - 2]),
        "student",
    ]
    expected = [
        [role, m["selection_metrics"]["metric"], m["sizes"]["all"]] for role, m in zip(roles, models, strict=True)
    ]
    candidates = [c for c in results["candidates"] if c["stage"] == 1]
    expected[1:1] = [[f"{100 * c['sparsity']:g} %", c["metric"], c["sizes"]["all"]] for c in candidates]
    times = results["latency"]["networks"]
    keys = ("processor_milliseconds", "low", "high", "speedup")
    assert page.rows("networks") == [[*row, *(times[row[0]][key] for key in keys)] for row in expected]
    for plot in ("front-size", "front-latency"):
        assert {f"{plot}-{role.replace(' ', '-')}" for role in roles} <= set(page.ids)
    assert "8 ms" in text


@pytest.mark.parametrize(
    ("speedup", "tile", "heading"),
    [
        (1.5, "1.5 × faster", "faster than the teacher"),
        (0.8, "1.25 × slower", "as fast as the teacher"),  # a pass takes 1 / 0.8 of the teacher's time
        (0.9999, "as fast", "as fast as the teacher"),
    ],
)
def test_a_student_may_be_slower_than_its_teacher(tmp_path, no_plots, speedup, tile, heading):
    results = make(schedule="direct")
    results["latency"]["networks"]["student"]["speedup"] = speedup
    text = render(results, tmp_path)
    assert f'<dd class="small">{tile}, 1 row of 27 tokens</dd>' in text
    assert Page(text).tables["networks"][0][-1] == heading


def test_runs_without_times_say_so(tmp_path, no_plots):
    results = copy.deepcopy(CASES["one assistant"])
    for latency in (None, "missing"):
        if latency:
            del results["latency"], results["cost"]["all_trials_flops"]
        else:
            results["latency"] = None
        text = render(results, tmp_path)
        assert "Latency was not measured." in text
        assert [len(row) for row in Page(text).rows("networks")] == [3] * 8


def test_the_cost_of_trying_every_candidate(usual, pages):
    _, text, _ = usual
    assert "Trying every one of the 4 candidates as the assistant instead" in text
    assert "1.06 × 10¹³ FLOPs (counted, not run), 2 × as many." in text
    assert "Trying every one" not in pages("direct")


@pytest.mark.parametrize("kind", ["classification", "causal-lm"])
def test_what_cost_counts_is_said(tmp_path, no_plots, kind):
    page = Page(render(make(schedule="direct", kind=kind), tmp_path))
    (words,) = [part for part in page.text if part.startswith("FLOPs are counted")]
    assert "teachers' outputs that are kept" in words
    # `Shape.forward_flops` counts a language model's choice of tokens, and no classifier.
    assert ("choice among all tokens" in words, "classifier" in words) == (kind == "causal-lm", kind != "causal-lm")
    # `measured` resets the peak.
    assert "while the stage ran" in words


def test_widths_per_layer(usual):
    results, _, page = usual
    assistant, student = results["assistants"][0], results["student"]
    columns = [assistant["heads"], assistant["neurons"], student["heads"], student["neurons"]]
    rows = page.rows("layers")
    assert [row[1:] for row in rows[:LAYERS]] == [list(row) for row in zip(*columns, strict=True)]
    assert rows[LAYERS][1:] == [sum(column) for column in columns]


def test_widths_of_an_uneven_student(tmp_path, no_plots):
    results = copy.deepcopy(CASES["direct"])
    results["student"] |= {"heads": [0, 1, 2], "neurons": [0, 8, 16]}
    rows = Page(render(results, tmp_path)).rows("layers")
    assert [row[1:] for row in rows] == [[0, 0], [1, 8], [2, 16], [3, 24]]


def test_widths_of_an_encoder_decoder_model(tmp_path, no_plots):
    results = copy.deepcopy(CASES["direct"])
    assert "cross-attentions" not in render(results, tmp_path)
    results["teacher"] |= {"heads": [10] * 4, "neurons": [100] * 3}
    results["student"] |= {"heads": [1, 2, 0, 3], "neurons": [8, 0, 16]}
    text = render(results, tmp_path)
    assert [row[1:] for row in Page(text).rows("layers")] == [[1, 8], [2, 0], [0, 16], [3, ""], [6, 24]]
    assert "cross-attentions" in text


def test_a_student_of_fewer_layers(tmp_path, no_plots):
    results = copy.deepcopy(CASES["direct"])
    results["student"] |= {"heads": [10], "neurons": [100]}
    rows = Page(render(results, tmp_path)).rows("layers")
    assert [row[1:] for row in rows] == [[10, 100], [10, 100]]


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        ("finetune", "None: with the schedule “finetune” the student learns from the labels"),
        ("chain", "As it was given: 60 %, then 80 % sparsity."),
        ("maxidisc", "of 2 trials, each through another size, this one ended with the best student: 0.8734 on the"),
    ],
)
def test_other_schedules_in_words(tmp_path, no_plots, schedule, sentence):
    results = make(stages=3)
    results["settings"]["schedule"] = schedule
    results["settings"]["assistants"] = (0.6, 0.8) if schedule == "chain" else None
    results |= {"candidates": [], "trials": [{}, {}]}
    if schedule == "finetune":
        results["assistants"] = []
    assert sentence in render(results, tmp_path)


def test_a_difference_of_accuracies_stands_with_its_own_standard_error(tmp_path, no_plots):
    results = copy.deepcopy(CASES["direct"])
    assert "standard error" not in render(results, tmp_path)
    only, matrix = {"teacher": 7, "student": 3}, [[20, 5], [5, 20]]
    found = {"labels": ["a", "b"], "teacher": matrix, "student": matrix, "rows": 50, "differ": 10, "examples": []}
    results["contrast"] = {**found, "only_right": only}
    # Of every row's own difference.
    error = np.std([-1] * 7 + [1] * 3 + [0] * 40) / math.sqrt(50)
    assert f"difference −0.0500 with a standard error of {error:.4f}" in render(results, tmp_path)
    results["task"]["metrics"] = ["f1"]
    for model in (results["teacher"], results["student"]):
        for part in ("metrics", "selection_metrics"):
            model[part]["f1"] = model[part]["accuracy"]
    assert "standard error" not in render(results, tmp_path)


def test_warnings_are_shown_and_escaped(tmp_path, no_plots):
    results = copy.deepcopy(CASES["direct"])
    results["warnings"] = ["the teacher scores 0.5 & <chance>"]
    assert "the teacher scores 0.5 &amp; &lt;chance&gt;" in render(results, tmp_path)


@pytest.mark.parametrize("trusted", [False, True])
def test_the_command_that_repeats_a_run_allows_code_where_the_run_did(tmp_path, no_plots, trusted):
    results = copy.deepcopy(CASES["direct"])
    results["settings"]["trust_remote_code"] = trusted
    command = "minidisc compress --config run.yaml --output-dir ANOTHER" + " --trust-remote-code" * trusted
    assert f"<code>{command}</code>" in render(results, tmp_path)


def points(text, gid):
    """Centres of the markers of a line in a plot, in the plot's coordinates."""
    start = text.index(f'<g id="{gid}">')
    return [tuple(map(float, xy)) for xy in re.findall(r'<use [^>]*x="([-\d.]+)" y="([-\d.]+)"', block(text[start:]))]


def block(text):
    """The first <g> element, with what is nested in it."""
    depth = 0
    for match in re.finditer(r"<g\b|</g>", text):
        depth += 1 if match[0] == "<g" else -1
        if not depth:
            return text[: match.end()]
    raise AssertionError("unbalanced <g>")


@pytest.mark.parametrize(("name", "stage", "index"), [("one assistant", 1, 1), ("two assistants", 2, 1)])
def test_the_plot_marks_the_chosen_candidate(pages, name, stage, index):
    results = CASES[name]
    text = pages(name)
    table = [c for c in results["candidates"] if c["stage"] == stage]
    assert table[index]["chosen"]
    curve = points(text, f"candidates-{stage}-tradeoff")
    assert len(curve) == len(points(text, f"candidates-{stage}-metric")) == len(table)
    assert points(text, f"candidates-{stage}-chosen") == [curve[index]]
    # The axes are linear, and up is small in SVG.
    (x0, y0), (x1, y1) = curve[0], curve[-1]
    for row, (x, y) in zip(table, curve, strict=True):
        share = (row["sparsity"] - table[0]["sparsity"]) / (table[-1]["sparsity"] - table[0]["sparsity"])
        assert x == pytest.approx(x0 + share * (x1 - x0), abs=1e-3)
        height = (row["tradeoff"] - table[0]["tradeoff"]) / (table[-1]["tradeoff"] - table[0]["tradeoff"])
        assert y == pytest.approx(y0 + height * (y1 - y0), abs=1e-3)
    ends = points(text, f"candidates-{stage}-interval")
    metrics = points(text, f"candidates-{stage}-metric")
    per_unit = (curve[-1][1] - curve[0][1]) / (table[-1]["tradeoff"] - table[0]["tradeoff"])
    for row, (x, y), low, high in zip(table, metrics, ends[: len(table)], ends[len(table) :], strict=True):
        assert low == pytest.approx((x, y + per_unit * (row["interval"][0] - row["metric"])), abs=1e-3)
        assert high == pytest.approx((x, y + per_unit * (row["interval"][1] - row["metric"])), abs=1e-3)
    assert text.count('<tr class="chosen">') == len(results["assistants"])


@pytest.mark.parametrize(
    ("second", "taught_by", "student_from"),
    [
        ("assistant", ["assistant 1"], "assistant 2"),
        ("teacher", ["teacher"], "teacher"),
        ("both", ["assistant 1", "teacher"], "assistant 2 and teacher"),
    ],
)
def test_who_teaches_behind_an_assistant(tmp_path, monkeypatch, no_plots, second, taught_by, student_from):
    lines = []
    monkeypatch.setattr(content, "candidates_plot", lambda *given: lines.append(given[5]) or "")
    results = make(stages=3)
    results["settings"]["second_teacher"] = second
    metrics = {"teacher": 0.95, "assistant 1": 0.94, "assistant 2": 0.93}
    for model, value in zip([results["teacher"], *results["assistants"]], metrics.values(), strict=True):
        model["selection_metrics"] = {"accuracy": value, "metric": value}
    text = render(results, tmp_path)
    assert lines == [[0.95], [metrics[role] for role in taught_by]]
    assert f'<th scope="row">Student from {student_from}</th>' in text


@pytest.mark.parametrize(
    ("teachers", "label"), [([0.95], "its teacher's metric"), ([0.95, 0.85], "its teachers' metrics")]
)
def test_every_teacher_has_a_line_and_the_legend_one_word_for_them(monkeypatch, teachers, label):
    axes = Figure().add_subplot()
    monkeypatch.setattr(plots, "_svg", lambda name, draw, *_, **__: draw(axes))
    rows = make()["candidates"]
    plots.candidates_plot("c", rows, rows[0], "accuracy", 0.2, teachers, "text")
    assert [line.get_ydata()[0] for line in axes.lines if "teacher" in line.get_label()] == teachers
    assert [name for name in axes.get_legend_handles_labels()[1] if "teacher" in name] == [label]


@pytest.mark.parametrize(
    ("sparsities", "chosen", "labelled"),
    [
        # The default grid, with a target that lies close to one of its points.
        ((50, 60, 70, 80, 90, 90.7), 70, (50, 60, 70, 80, 90.7)),
        ((50, 60, 70, 80, 90, 90.7), 90, (50, 60, 70, 80, 90)),
        ((10, 20, 30, 40, 50, 60, 70, 80, 90, 95), 50, (10, 20, 30, 40, 50, 60, 70, 80, 90, 95)),
        ((*range(10, 90, 4), 90.5), 50, (10, 18, 26, 34, 42, 50, 58, 66, 74, 82, 90.5)),
        ((90,), 90, (90,)),
    ],
)
def test_sparsities_that_lie_close_are_ticks_without_labels(monkeypatch, sparsities, chosen, labelled):
    drawn = []
    monkeypatch.setattr(plots, "_svg", lambda name, draw, *_, **__: drawn.append(draw))
    rows = [candidate(1, s / 100, {"metric": 0.5}) for s in sparsities]
    best = rows[sparsities.index(chosen)]
    plots.candidates_plot("one", rows, best, "accuracy", 0.2, [0.8], "")
    figure = Figure((plots._WIDTH, plots._HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    drawn[0](axes)
    figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{s:g}" for s in labelled]
    every = [*axes.get_xticks(), *axes.get_xticks(minor=True)]
    assert sorted(every) == pytest.approx(sparsities)
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_the_interval_need_not_hold_the_metric(tmp_path):
    results = make()
    for row in results["candidates"]:
        row["interval"] = [row["metric"] + 0.01, row["metric"] + 0.02]
    assert len(points(render(results, tmp_path), "candidates-1-interval")) == 10


def test_what_each_lambda_would_have_chosen(tmp_path, no_plots):
    results = make()
    metrics = {0.5: 0.92, 0.6: 0.91, 0.7: 0.88, 0.8: 0.87, 0.9: 0.80}
    for row in results["candidates"]:
        row["metric"] = row["metrics"]["metric"] = row["metrics"]["accuracy"] = metrics[row["sparsity"]]
        row["tradeoff"] = row["metric"] + 0.2 * row["sparsity"]
        row["chosen"] = row["sparsity"] == 0.8
    text = render(results, tmp_path)
    page = Page(text)
    assert page.rows("sweep-1-table") == [[0, 0.1, 0.5], [0.1, 0.2, 0.6], [0.2, 0.7, 0.8], [0.7, 1, 0.9]]
    (here,) = re.findall(r'<tr class="here">.*', text)
    assert re.findall(r'value="([^"]*)"', here) == ["0.2", "0.7", "0.8"]
    words = " ".join("".join(page.text).split())
    assert "The size with 80 % sparsity" in words
    assert "Every λ from 0.2 to 0.7 would choose the same." in words


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("one assistant", "The size with 60 % sparsity, since of 5 candidates"),
        (
            "one assistant",
            "On 160 other rows like the selection rows it would be chosen with probability 0.60, and 90 % with 0.20.",
        ),
        # Even with 50 % at λ = 0, and only at 1 with the sparser ones, which have lost as much as they are sparser.
        ("one assistant", "Every λ from 0 to 1 would choose the same."),
        (
            "two assistants",
            "Sandwich 2: the size with 80 % sparsity, since of 3 candidates it has the largest t_λ = metric + λ · "
            "sparsity = 0.8000 + 0.2 · 0.8 = 0.9600.",
        ),
        ("two assistants", "Sandwich 2: the size with 80 % sparsity, since of 3 candidates"),
        ("one stage", "None: with one stage"),
        ("direct", "None: with the schedule “direct”"),
        ("regression", "−0.0450 + 0.2 · 0.6 = 0.0750. The next is 50 % with 0.0200 less."),
    ],
)
def test_the_choice_in_words(pages, name, sentence):
    text = " ".join("".join(Page(pages(name)).text).split())
    assert sentence in text


def test_the_students_own_size_may_win(tmp_path):
    results = make()
    results["assistants"] = []
    for row in results["candidates"]:
        row["chosen"], row["tradeoff"] = False, row["sparsity"]
    del results["history"]["student"]
    text = render(results, tmp_path)
    assert "that is the student&#39;s own size, so no assistant" in text
    assert points(text, "candidates-1-chosen") == [points(text, "candidates-1-tradeoff")[-1]]


def test_no_assistant_may_be_wanted(tmp_path, no_plots):
    results = make()
    results["settings"]["no_gap"], results["assistants"] = "assume", []
    for row in results["candidates"]:
        row["chosen"] = False
    text = " ".join("".join(Page(render(results, tmp_path)).text).split())
    assert "no assistant is put between all the same (--no-gap assume)" in text
    assert "student's own size" not in text


def test_selection_on_validation_rows_is_said(usual, tmp_path, no_plots):
    results, text, _ = usual
    assert "Mind:" not in text
    results = copy.deepcopy(results)
    results["settings"]["select_on"] = "validation"
    assert "this run selected on the validation rows" in render(results, tmp_path)


def test_any_text_is_escaped(tmp_path, no_plots):
    results = make()
    nasty = "</svg><script>alert('$x_1$ \"&amp;')</script>\udcff"
    results["teacher"]["path"] = results["student"]["path"] = results["assistants"][0]["path"] = nasty
    results["task"]["name"] = results["machine"] = results["settings"]["train_file"] = nasty
    results["rows"]["train"]["source"] = nasty
    results["versions"] = {"torch": nasty}
    page = Page(render(results, tmp_path))
    assert page.tags.count("script") == 1
    assert page.text.count(nasty.replace("\udcff", "\\udcff")) >= 4


def test_equal_results_give_equal_bytes(pages, tmp_path):
    results = CASES["one stage"]
    before, text = copy.deepcopy(results), pages("one stage")
    assert results == before
    assert text == render(json.loads(json.dumps(results)), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("score", 0.90625, "0.9063"),
        ("score", 1.5e30, "1.5e+30"),
        ("score", math.inf, "inf"),
        ("score", -0.00001, "0.0000"),
        ("score", -0.5, "−0.5000"),
        ("lam", 0.125, "0.125"),
        ("lam", 1.0, "1"),
        ("signed", 0.25, "+0.2500"),
        ("signed", -0.25, "−0.2500"),
        ("signed", 0.0, "0.0000"),
        ("percent", 0.95, "95 %"),
        ("parameters", 999, "999"),
        ("parameters", 1_052_216, "1.05 M"),
        ("parameters", 999_999, "1.00 M"),
        ("parameters", 99_960, "100 k"),
        ("parameters", 10_632_960, "10.6 M"),
        ("flops", 0, "0"),
        ("flops", 5300490907648.0, "5.30 × 10¹²"),
        ("duration", 59.96, "1 min 00 s"),
        ("duration", 22.01, "22.0 s"),
        ("duration", 3599.7, "1 h 00 min"),
        ("size", 2056634368, "2.06 GB"),
        ("setting", (0.5, 0.6), "0.5, 0.6"),
        ("setting", None, "not set"),
        ("setting", True, "yes"),
        ("setting", 5e-05, "5e-05"),
    ],
)
def test_numbers(name, value, text):
    assert getattr(formats, name)(value) == text


def test_times():
    assert formats.times(100, 10) == "10 ×"
    assert formats.times(1, 0) == "–"
