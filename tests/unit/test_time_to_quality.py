"""When a student is as good as another method's last one, against curves made by hand."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from time_to_quality import compared, page, with_earlier


def point(step, metric, seconds, stage="sandwich-1"):
    return {
        "stage": stage,
        "step": step,
        "metric": metric,
        "seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "flops": 3 * seconds,
    }


def cell(*curve):
    return {"curve": curve, "settings": {"max_steps": 10}, "record": {"machine": "a machine"}}


PLAIN = cell(point(5, 0.6, 10.0), point(10, 0.8, 20.0), point(10, 0.7, 40.0))
OURS = point(0, 0.9, 0.5), point(5, 0.7, 2.0), point(5, 0.8, 5.0, "student"), point(10, 0.9, 8.0, "student")


def test_when_the_student_is_as_good():
    found = compared(PLAIN, cell(*OURS))
    assert found["plain_metric"] == 0.8
    assert (found["own"]["stage"], found["own"]["step"]) == ("student", 5)
    assert found["ratio"] == {"seconds": 8.0, "cpu_seconds": 8.0, "flops": 8.0}
    missed = compared(PLAIN, cell(*OURS[:2]))
    assert missed["own"] is missed["ratio"] is None


@pytest.mark.parametrize("all_reached", [True, False])
def test_seeds_of_another_day_are_kept(tmp_path, all_reached):
    row = compared(PLAIN, cell(*OURS))
    first = {"t": {"ours": {1: row}, "other": {2: row}}, "u": {"ours": {0: row}}}
    (tmp_path / "f.json").write_text(json.dumps({"tasks": first}))
    # Twice as long.
    slower = [{**p, **{key: 2 * p[key] for key in ("seconds", "cpu_seconds", "flops")}} for p in OURS]
    later = cell(*slower[: 4 if all_reached else 2])
    both = with_earlier({"t": {"ours": {0: compared(PLAIN, later)}}}, tmp_path / "f")
    assert [[*seeds] for methods in both.values() for seeds in methods.values()] == [[0, 1], [2], [0]]
    text = page(both, {"t": "Task", "u": "Other"})
    # Of two, the lower where one has no number: what was not reached comes last.
    median = "**6.0** (4.0 … 8.0)" if all_reached else "**not reached** (not reached … 8.0)"
    assert f"| Task | ours | | median | | | | | {median} |" in text
    assert ("| Task | ours | 10 | 0 | 0.8000 | 0.9000 | 80 | not reached |" in text) != all_reached
