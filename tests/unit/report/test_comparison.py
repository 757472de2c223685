import copy
import re

import pytest

from minidisc.report import write_comparison, write_report
from tests.unit.report.test_report import CASES, Page, make

CONTRAST = {
    "labels": ["neg", "pos"],
    "teacher": [[40, 3], [2, 50]],
    "student": [[35, 8], [7, 45]],
    "rows": 95,
    "differ": 12,
    "examples": [{"text": "secret <b>", "label": "pos", "teacher": "pos", "student": "neg"}],
}


def page(folder, write, *arguments):
    write(folder / "page.html", *arguments)
    text = (folder / "page.html").read_text()
    return text, Page(text)


def test_runs_side_by_side(tmp_path):
    one, two = copy.deepcopy(CASES["one assistant"]), copy.deepcopy(CASES["direct"])
    two["student"]["metrics"]["accuracy"] = 0.5
    two["settings"]["seed"] = one["settings"]["seed"] = 3
    two["budget"] = {"asked": "2M"}
    text, found = page(tmp_path, write_comparison, [("runs/one", one), ("runs/<two>", two)])
    assert "script" not in found.tags
    assert "runs/&lt;two&gt;" in text
    tables = {table: {row[0]: row[1:] for row in rows} for table, rows in found.tables.items()}
    assert tables["runs"]["accuracy, student"] == [one["student"]["metrics"]["accuracy"], 0.5]
    assert tables["runs"]["accuracy, difference"][1] == pytest.approx(0.5 - two["teacher"]["metrics"]["accuracy"])
    assert tables["runs"]["budget"] == ["none", "2M"]
    assert tables["runs"]["through"] == ["60 %", "no assistant"]
    assert tables["sizes"]["prunable"] == [r["student"]["sizes"]["prunable"] for r in (one, two)]
    # Runs without a sandwich have no candidates.
    assert tables["candidates"]["70 %"] == [one["candidates"][2]["metric"], ""]
    assert tables["cost"]["steps"] == [1234, 1234]
    assert tables["settings"]["schedule"] == ["minidisc", "direct"]
    assert "seed" not in tables["settings"]
    assert "Mind:" not in text
    for plot in ("front-size", "front-latency"):
        assert {f"{plot}-teacher", f"{plot}-runs/one"} <= set(found.ids)


def test_students_stand_beside_the_teacher_as_in_their_own_runs(tmp_path):
    one, two = make(schedule="direct"), make(schedule="direct")
    # The machine was slower, and busy, in the second run, whose student is the faster one.
    for results, teacher, speedup in ((one, 6.0, 2.0), (two, 20.0, 2.5)):
        networks = results["latency"]["networks"]
        networks["teacher"]["processor_milliseconds"] = teacher
        networks["student"] |= {"processor_milliseconds": teacher / speedup, "speedup": speedup}
    two["latency"]["busy"] = True
    text, _ = page(tmp_path, write_comparison, [("one", one), ("two", two)])
    assert re.findall(r"(\w+) [\d.]+ at ([\d.]+)", text[text.index("over processor time") :])[:3] == [
        ("teacher", "6"),
        ("one", "3"),
        ("two", "2.4"),
    ]
    assert "divided by how many times as fast" in text
    assert "The machine was busy" in text
    two["latency"]["busy"] = False
    assert "busy" not in page(tmp_path, write_comparison, [("one", one), ("two", two)])[0]


def test_long_settings_wrap_and_numbers_do_not(tmp_path):
    one, two = make(schedule="direct"), make(schedule="direct")
    two["settings"]["grid"] = [i / 20 for i in range(1, 20)]
    text, _ = page(tmp_path, write_comparison, [("one", one), ("two", two)])
    assert '<td class="value">0.05, 0.1, 0.15' in text
    assert ".number td.value { white-space: normal; overflow-wrap: anywhere;" in text
    assert "<td><data" in text


def test_no_report_shows_a_password(tmp_path):
    one, two = make(schedule="direct"), make(schedule="direct")
    for name, results in (("one", one), ("two", two)):
        address = f"https://bob:hunter2@corp.example/{name}.jsonl?X-Amz-Signature=abc"
        results["settings"]["train_file"] = address
        results["warnings"] = [f"{address}: 5 of 60 rows are empty."]
    pages = [page(tmp_path, write_report, one)[0], page(tmp_path, write_comparison, [("one", one), ("two", two)])[0]]
    for text in pages:
        assert "https://corp.example/one.jsonl" in text
        assert "hunter2" not in text
        assert "Signature" not in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"latency": None}, "not every run was timed"),
        ({"latency": {**CASES["direct"]["latency"], "length": 28}}, "the runs timed passes of other numbers of rows"),
        ({"machine": "another"}, "the runs were not on the same machine"),
    ],
)
def test_why_there_is_no_latency(tmp_path, change, reason):
    one = make(schedule="direct")
    text, found = page(tmp_path, write_comparison, [("one", one), ("two", {**one, **change})])
    assert f"Latency is left out: {reason}" in text
    assert "front-size-teacher" in found.ids
    assert "front-latency-teacher" not in found.ids


def test_a_run_whose_name_begins_with_an_underscore_is_in_the_legends(tmp_path):
    runs = copy.deepcopy(CASES["one assistant"]), copy.deepcopy(CASES["direct"])
    text, _ = page(tmp_path, write_comparison, list(zip(("_old", "new"), runs, strict=True)))
    labels = [label.strip("\N{ZERO WIDTH SPACE}") for label in re.findall("<text [^>]*>([^<]*)</text>", text)]
    assert labels.count("_old") == labels.count("new") == 2


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"fingerprints": {"rows": "other", "teacher_weights": "t"}}, "same rows"),
        ({"fingerprints": {"rows": "r", "teacher_weights": "other"}}, "same teacher"),
        ({"task": {"name": "glue/y", "kind": "classification", "metrics": ["accuracy"]}}, "same rows"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, change, warning):
    one = {**make(schedule="direct"), "fingerprints": {"rows": "r", "teacher_weights": "t"}}
    text, _ = page(tmp_path, write_comparison, [("one", one), ("two", {**one, **change})])
    assert text.count("Mind:") == 1
    assert "<svg" not in text
    assert warning in text


@pytest.mark.parametrize(("source", "warned"), [("the rest of validation.csv", True), ("validation.csv", False)])
def test_seeds_draw_other_validation_rows_where_selection_is_of_them_too(tmp_path, source, warned):
    one = copy.deepcopy(make(schedule="direct"))
    one["rows"]["validation"]["source"] = source
    two = copy.deepcopy(one)
    one["settings"]["seed"], two["settings"]["seed"] = 0, 1
    text, _ = page(tmp_path, write_comparison, [("one", one), ("two", two)])
    assert ("do not have the same rows" in text) is warned


def test_confusions_and_examples(tmp_path):
    results = {**make(schedule="direct"), "contrast": CONTRAST}
    text, found = page(tmp_path, write_report, results)
    for role in ("teacher", "student"):
        assert [row[1:] for row in found.rows(f"confusion-{role}")] == CONTRAST[role]
    assert "something else on 12" in text
    assert "secret &lt;b&gt;" in text
    text, found = page(tmp_path, write_report, results, False)
    assert "secret" not in text
    assert "examples" not in found.tables
    assert [row[1:] for row in found.rows("confusion-student")] == CONTRAST["student"]


@pytest.mark.parametrize("older", [False, True])
def test_many_labels_are_shown_as_pairs(tmp_path, older):
    matrix = [[0] * 30 for _ in range(30)]
    matrix[3][4] = matrix[5][5] = 9
    student = copy.deepcopy(matrix)
    student[7][1] = 11
    if not older:
        matrix, student = [[3, 4, 9], [5, 5, 9]], [[3, 4, 9], [5, 5, 9], [7, 1, 11]]
    content = {**CONTRAST, "labels": [f"L{i}" for i in range(30)], "teacher": matrix, "student": student}
    _, found = page(tmp_path, write_report, {**make(schedule="direct"), "contrast": content})
    assert found.rows("confusions") == [["L7", "L1", 0, 11], ["L3", "L4", 9, 9]]


def test_errors_of_numbers(tmp_path):
    content = {
        "edges": [0.5, 1, 2, 4],
        "teacher": [5, 4, 3, 2, 1],
        "student": [1, 2, 3, 4, 5],
        "rows": 15,
        "examples": [],
    }
    results = make(names=("pearson",), kind="regression", schedule="direct")
    _, found = page(tmp_path, write_report, {**results, "contrast": content})
    rows = found.rows("errors")
    assert [row[0] for row in rows] == ["below 0.5", "0.5 to 1", "1 to 2", "2 to 4", "4 or more"]
    assert [row[1:] for row in rows] == [[5, 1], [4, 2], [3, 3], [2, 4], [1, 5]]
