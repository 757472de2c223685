import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from minidisc.cli.output import Output
from minidisc.comparison.table import Comparison
from minidisc.pipeline import Plan
from minidisc.preflight import Estimate
from minidisc.results import Sizes
from minidisc.subnetworks import SubnetworkSpec

SIZES = {"prunable": 85_054_464, "without_embeddings": 85_648_130, "all": 109_483_778}
METRICS = {0.5: 0.92, 0.6: 0.91, 0.7: 0.88, 0.8: 0.87, 0.9: 0.80}


def row(stage, sparsity, probability, chosen=False):
    metric = METRICS[sparsity]
    return {
        "stage": stage,
        "sparsity": sparsity,
        "sizes": SIZES,
        "metric": metric,
        "interval": [metric - 0.02, metric + 0.01],
        "tradeoff": metric + 0.2 * sparsity,
        "probability": probability,
        "chosen": chosen,
    }


def printed(capsys, rows, stages=2, width=None, **settings):
    model = SimpleNamespace(metrics={"accuracy": 0.8, "metric": 0.8}, sizes=SimpleNamespace(**SIZES), path="run/x")
    result = SimpleNamespace(
        candidates=rows,
        assistants=[model for r in rows if r["chosen"]],
        stages=stages,
        cost=SimpleNamespace(steps=1, flops=1e12, seconds=3.0, peak_memory=1),
        teacher=model,
        student=model,
        report="run/report.html",
        results={"settings": {"tradeoff_lambda": 0.2, "assistants": None, **settings}},
    )
    output = Output()
    if width:
        output.console.width = width
    output.result(result)
    return capsys.readouterr().out


def one_table(chosen, probability=0.7):
    """Of all sizes; 80 % has the largest t_λ."""
    return [row(1, s, probability if s == 0.8 else 0.05, chosen and s == 0.8) for s in METRICS]


LARGE = {"prunable": 968_884_224, "without_embeddings": 968_982_528, "all": 1_034_518_528}
FIGURES = "0.8700 0.850–0.880 1.0300 0.70"
NEGATIVE = {"metric": -0.0123, "interval": [-0.0456, -0.0111], "tradeoff": 0.1477}


@pytest.mark.parametrize(
    ("width", "tables", "change", "figures", "sizes"),
    [
        (None, 1, {}, FIGURES, "85.05 M 85.65 M 109.48 M"),
        (80, 1, {}, FIGURES, "85.05 M 85.65 M 109.48 M"),
        (60, 2, {}, FIGURES, "85.05 M 85.65 M 109.48 M"),
        (40, 2, {}, FIGURES, "85.05 M 85.65 M 109.48 M"),
        (80, 1, {"sizes": LARGE}, FIGURES, "968.88 M 968.98 M 1.03 B"),
        (80, 2, NEGATIVE, "-0.0123 -0.046–-0.011 0.1477 0.70", "85.05 M 85.65 M 109.48 M"),
    ],
)
def test_every_candidate_with_all_its_figures_at_any_width(capsys, width, tables, change, figures, sizes):
    rows = one_table(chosen=True)
    rows[3] |= change
    text = printed(capsys, rows, width=width)
    assert "…" not in text
    lines = [line for line in text.splitlines() if line.startswith("    1  ")]
    assert [line.replace("→", "").split()[1] for line in lines] == ["50", "60", "70", "80", "90"] * tables
    assert width in (None, 40) or max(map(len, lines)) <= width
    # The chosen one has its mark in each table.
    marked = [" ".join(line.split()) for line in lines if "→" in line]
    assert marked == [f"1 → 80 % {part}" for part in ([f"{figures} {sizes}"] if tables == 1 else [figures, sizes])]


@pytest.mark.parametrize("width", [None, 80])
def test_a_title_is_not_broken_where_its_table_ends(capsys, width):
    rows = [{**row, "sizes": dict.fromkeys(SIZES, 1_000_000)} for row in one_table(chosen=True)]
    lines = [line.rstrip() for line in printed(capsys, rows, width=width).splitlines()]
    assert lines[0].endswith("95 % interval, tradeoff t_λ,")
    assert lines[1].endswith("parameters in three ways")
    assert lines[2].split()[:3] == ["stage", "size", "metric"]


def test_of_a_plan_nothing_is_cut(capsys):
    estimate = Estimate(seconds=1.0, cpu_seconds=1.0, flops=1.0, memory=1, phases={}, disk=1)
    plan = Plan([(SubnetworkSpec(0.9, (12,), (13107, 131)), Sizes(**LARGE))], [["student"]], [10], estimate)
    output = Output()
    output.console.width = 40
    output.plan(plan)
    assert "90 % 12 13238 968.88 M 968.98 M 1.03 B" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("chosen", "probability", "line"),
    [
        (True, 0.7, "chosen 80 %; probability 0.70; unchanged for λ from 0.2 to 0.7\n"),
        (True, 0.34, "chosen 80 %; probability 0.34, a coin toss; unchanged for λ from 0.2 to 0.7\n"),
    ],
)
def test_the_choice_and_the_other_lambdas_that_would_make_it(capsys, chosen, probability, line):
    assert line in printed(capsys, one_table(chosen, probability))


def test_the_students_own_size_may_win(capsys):
    text = printed(capsys, one_table(chosen=False)[:4])
    assert "chosen 80 %, the student's own size, so there is no assistant; probability 0.70; " in text
    assert "; unchanged for λ from 0.2 to 1\n" in text


def test_nothing_is_chosen_where_no_assistant_is_wanted(capsys):
    text = printed(capsys, one_table(chosen=False), no_gap="assume")
    assert "no assistant, whatever the tradeoffs are\n" in text
    assert "student's own size" not in text


def test_two_sandwiches(capsys):
    rows = [*one_table(chosen=True), row(2, 0.9, 1.0)]
    text = printed(capsys, rows, stages=3)
    assert "sandwich 1: chosen 80 %; probability 0.70; unchanged for λ from 0.2 to 0.7\n" in text
    line = "sandwich 2: chosen 90 %, the student's own size, so there is no further assistant; probability 1.00; "
    assert f"{line}unchanged for λ from 0 to 1\n" in text


def test_with_one_stage_nothing_is_chosen(capsys):
    text = printed(capsys, one_table(chosen=False, probability=0.3), stages=1)
    assert "no assistant: --stages is 1\n" in text
    assert "coin toss" not in text


def test_colours_unless_no_color_says_otherwise(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    Output().warn("look")
    assert "\x1b[33m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    Output().warn("look")
    assert "\x1b[3" not in capsys.readouterr().out


def test_a_terminal_obeys_no_label_and_no_name(capsys):
    output = Output()
    output.warn("label a\x1b[2J\n\x9bb is odd")
    output.note("\u202efile\x07.csv → übung [b]")
    output._print_table(("method",), [["direct\x1b]0;title\x07"]])
    text = capsys.readouterr().out
    warning, note, *table = text.splitlines()
    assert warning == r"warning: label a\x1b[2J\n\x9bb is odd"
    assert note == r"\u202efile\x07.csv → übung [b]"
    assert r"direct\x1b]0;title\x07" in [line.strip() for line in table]


def test_warnings_are_not_lost_where_progress_is(capsys):
    output = Output(quiet=True)
    output.note("progress")
    output.warn("look")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "warning: look\n")


def on_a_terminal(monkeypatch):
    """Make one of the standard output, whatever the tests run in."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def plain(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_a_terminal_shows_the_bar_of_the_stage_that_runs_alone(monkeypatch, capsys):
    on_a_terminal(monkeypatch)
    with Output() as output:
        progress = output.stage("first")
        for step in range(5):
            progress(step, 4, 0.5, None)
        progress(4, 4, None, {"90 %": 0.8})
        output.stage("read back")
        output.stage("last")(3, 7, 0.5, None)
    text = plain(capsys.readouterr().out)
    (bar,) = text.rpartition("\x1b[2K")[2].splitlines()[:-1]
    assert bar.startswith("last ")
    assert "3/7" in bar
    # What is gone has left its figures; a stage that took no step has nothing to show.
    assert "first step 4: 90 % 0.800\n" in text
    assert "read back" not in text


@pytest.mark.parametrize("variable", [("FORCE_COLOR", "1"), ("TERM", "dumb")])
def test_a_coloured_log_and_a_dumb_terminal_get_plain_lines(monkeypatch, capsys, variable):
    on_a_terminal(monkeypatch)
    monkeypatch.setenv(*variable)
    if variable[0] == "FORCE_COLOR":
        monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    monkeypatch.setattr("minidisc.cli.output.PLAIN_SECONDS", 0.0)
    with Output() as output:
        progress = output.stage("student")
        for step in range(3):
            progress(step, 4, 0.5, None)
        output.comparison(compared(["accuracy"]))
    text = capsys.readouterr().out
    assert "\x1b[2K" not in text
    assert "student step 2/4, loss 0.5000, 0 s left\n" in plain(text)
    assert "0/?" not in text
    assert plain(text).count(METHODS[-1]) == 3
    output.warn("look")
    assert ("\x1b[33m" in capsys.readouterr().out) == (variable[0] == "FORCE_COLOR")


METHODS = ("minidisc", "direct:student=layers", "minidisc:stages=3:second_stage=sandwich:no_gap=assume")


def compared(metrics):
    """A comparison of `METHODS` over three seeds, its figures as long as they usually are."""
    cost = {"steps": 123456, "flops": 1.23e15, "seconds": 12345, "cpu_seconds": 23456, "peak_memory": 12 * 2**30}
    rows = [
        {
            "method": method,
            "target_sparsity": 0.95,
            "seeds": [0, 1, 2],
            "metrics": dict.fromkeys(metrics, (0.8765, 0.0123)),
            "sizes": {name: (size, 0.0) for name, size in SIZES.items()},
            "assistants": [[0.5, 0.7], [0.6, 0.8], []],
            "cost": {name: (value, 123.0) for name, value in cost.items()},
        }
        for method in METHODS
    ]
    teacher = {"metrics": dict.fromkeys(metrics, 0.9)}
    content = {"task": {"metrics": metrics}, "teacher": teacher, "table": rows}
    return Comparison(Path("c"), {**content, "failures": {}})


@pytest.mark.parametrize("width", [None, 80, 40])
@pytest.mark.parametrize("metrics", [["accuracy"], ["accuracy", "f1"]])
def test_of_a_comparison_nothing_is_cut(monkeypatch, capsys, width, metrics):
    if width:
        on_a_terminal(monkeypatch)
    output = Output()
    if width:
        output.console.width = width
    output.comparison(compared(metrics))
    text = plain(capsys.readouterr().out)
    assert "…" not in text
    lines = [line for line in text.splitlines() if not line.startswith("table  ")]
    assert width != 80 or max(map(len, lines)) <= 80
    figures = ["95 %", "0.876 ± 0.012", "85.05 M", "85.65 M", "109.48 M", "123456", "1.23e+15"]
    figures += ["12345 ± 123", "23456 ± 123", "12.0"]
    for method in METHODS:
        # A name may go on in the next line.
        found = "\n".join(line for line in lines if line.startswith(method[:12]))
        assert all(figure in found for figure in figures), figures
    if width is None:
        assert all(text.count(method) >= 3 for method in METHODS)
