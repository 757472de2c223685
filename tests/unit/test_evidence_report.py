"""The tables of the evidence, against figures worked out by hand."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import evidence as plans
import evidence_figures as report
from evidence import CHEAPEST, NO_ASSISTANT, SANDWICH, Plan, with_targets
from evidence_report import write
from tasks import Cell

from minidisc.comparison.methods import in_order, parse_method
from minidisc.errors import UserError

PLAN = Plan({"t": Cell("Task", 1, 1e-4, 8, 10, 1e-3)}, assistants=(0.5, 0.7), targets=(0.9,), batch_size=8)
# Of two seeds: what candidates score in the sandwich, and what the students through them score.
SANDWICHES = [{0.5: 0.90, 0.7: 0.85, 0.9: 0.70}, {0.5: 0.90, 0.7: 0.89, 0.9: 0.80}]
STUDENTS = [{0.5: 0.60, 0.7: 0.66, 0.9: 0.63}, {0.5: 0.70, 0.7: 0.74, 0.9: 0.69}]
ALONE = [{0.5: 0.62, 0.7: 0.65}, {0.5: 0.71, 0.7: 0.77}]
SIZES = {"sandwich": {0.5: 0.80, 0.7: 0.75}, "alone": {0.5: 0.82, 0.7: 0.74}}


def cell(method, seed, metric, cpu=10.0, stages=(), **more):
    cost = {"steps": 1, "flops": 100.0 * cpu, "seconds": cpu, "cpu_seconds": cpu, "peak_memory": 1}
    return {
        "method": method,
        "target_sparsity": 0.9,
        "seed": seed,
        "metrics": {"accuracy": metric, "metric": metric},
        "selection_metrics": {"metric": metric},
        "sizes": {"prunable": 1, "without_embeddings": 2, "all": 3},
        "assistants": [],
        "candidates": [],
        "cost": cost,
        "stages": {name: cost for name in stages},
        "machine": "Intel, cpu, torch threads 1",
        **more,
    }


def assistant(size, metric):
    """What it scores on the validation set, and 0.01 more on the selection rows."""
    metrics = {"accuracy": metric, "metric": metric}
    return {"sparsity": size, "metrics": metrics, "selection_metrics": {"metric": metric + 0.01}}


def cells():
    found = []
    for seed in (0, 1):
        table = [{"sparsity": s, "metric": m} for s, m in SANDWICHES[seed].items()]
        found += [
            cell("minidisc", seed, STUDENTS[seed][0.7], 12.0, candidates=table),
            cell(NO_ASSISTANT, seed, STUDENTS[seed][0.9]),
            cell(SANDWICH, seed, 0.6),
            cell("direct", seed, 0.65, stages=["student"]),
            cell("direct:max_steps=20", seed, 0.64 + 0.02 * seed),
            cell("direct:loss=logits", seed, 0.61 + 0.02 * seed, 7.0),
            cell("maxidisc", seed, ALONE[seed][0.7], 40.0),
        ]
        for size in (0.5, 0.7):
            scores = (SIZES[kind][size] for kind in ("sandwich", "alone"))
            own, alone = ([assistant(size, m)] for m in scores)
            found.append(cell(f"minidisc:assistants={size}", seed, STUDENTS[seed][size], assistants=own))
            stage = [f"assistant-{100 * size:g}"]
            found.append(cell(f"chain:assistants={size}", seed, ALONE[seed][size], stages=stage, assistants=alone))
    return found


@pytest.fixture
def evidence():
    return report.Evidence(PLAN, "t", [{"cells": cells(), "teacher": {"metrics": {"metric": 0.9}}}])


def test_the_correlation_over_candidates(evidence):
    found = report.finding(evidence, 0.9)
    assert found["seeds"] == 2
    # Means of the students: 0.65, 0.70, 0.66; of t at λ = 0: 0.90, 0.87, 0.75, ranks 3 2 1 against 1 3 2.
    assert found["0"]["of_means"] == pytest.approx(-0.5)
    # λ = 0.2: 1.00, 1.01, 0.93, ranks 2 3 1 against 1 3 2. By seed, ranks 2 3 1 and 2 3 1 … against 1 3 2 and 2 3 1.
    assert found["0.2"]["of_means"] == pytest.approx(0.5)
    assert found["0.2"]["by_seed"][0] == pytest.approx((0.5 * (-1 + 1) + -0.5 + 1) / 2)
    assert [mean for mean, _ in found["students"]] == pytest.approx([0.65, 0.70, 0.66])


def test_a_seed_whose_students_are_all_equal_has_no_correlation(evidence):
    for method in ("minidisc", NO_ASSISTANT, *(f"minidisc:assistants={size}" for size in (0.5, 0.7))):
        evidence.cells[method, 0.9, (0, 1)]["metrics"]["metric"] = 0.6
    evidence.cells[NO_ASSISTANT, 0.9, (0, 0)]["metrics"]["metric"] = 0.60
    # λ = 0, of the other seed: ranks 3 2 1 against 1.5 3 1.5, and none at all is not the same.
    found = report.finding(evidence, 0.9)["0"]
    assert (found["by_seed"], found["seeds_of_rho"]) == ((pytest.approx(0.0), None), 1)


def test_the_correlation_over_assistants_that_were_distilled_alone(evidence):
    found = report.finding_alone(evidence, 0.9)
    # λ = 0.2: 0.93, 0.89; λ = 1: 1.33, 1.45. The students through 70 % are the better ones both times.
    assert (found["0.2"]["of_means"], found["1"]["of_means"]) == pytest.approx((-1, 1))
    assert found["1"]["by_seed"] == pytest.approx((1, 0))


def test_what_a_choice_gains(evidence):
    gains = report.gains(evidence, 0.9)
    # λ = 0 chooses 50 % both times: 0.60 of a mean of 0.63, best 0.66; 0.70 of 0.71, best 0.74.
    assert gains[0.0] == pytest.approx(((-0.03 - 0.01) / 2, (-0.06 - 0.04) / 2))
    # λ = 1 chooses 90 %.
    assert gains[1.0] == pytest.approx(((0.0 - 0.02) / 2, (-0.03 - 0.05) / 2))


def test_one_trial_against_the_search(evidence):
    row = report.against_all(evidence, 0.9)
    means = {key: row[key][0] for key in ("trial", "maxidisc", "best", "mean", "flops", "cpu_seconds")}
    expected = {"trial": 0.70, "maxidisc": 0.71, "best": 0.71, "mean": 0.6875, "flops": 0.3, "cpu_seconds": 0.3}
    assert means == pytest.approx(expected)
    assert row["trial"][1] == pytest.approx(0.04)  # half the difference of two values
    # By seed: 0.66 less 0.65, 0.74 less 0.77.
    assert row["less_maxidisc"] == row["less_best"] == pytest.approx((-0.01, 0.02))
    # The better one both times, of 0.62 and 0.65, 0.71 and 0.77.
    assert row["pick_over_mean"][0] == pytest.approx(0.0225) and row["pick_over_best"][0] == 0


def test_a_cheaper_trial_against_the_search(evidence):
    assert report.against_all(evidence, 0.9, CHEAPEST) is None
    cheap = [cell(CHEAPEST, 0, 0.64, 5.0)]
    row = report.against_all(report.Evidence(PLAN, "t", [{"cells": cells() + cheap}]), 0.9, CHEAPEST)
    assert row["seeds"] == 1
    assert [row[key][0] for key in ("less_maxidisc", "less_best", "flops")] == pytest.approx([-0.01, -0.01, 0.125])


def test_a_search_whose_pick_is_known_before_all_that_it_tried(tmp_path):
    first = [c for c in cells() if not (c["seed"] == 1 and c["method"].startswith("chain"))]
    row = report.against_all(report.Evidence(PLAN, "t", [{"cells": first}]), 0.9)
    assert (row["seeds"], row["seeds_of_all"]) == (2, 1)
    assert row["less_maxidisc"] == pytest.approx((-0.01, 0.02))
    # Of the seed that has all: 0.66 less 0.65.
    assert row["less_best"] == (pytest.approx(0.01), None)

    write_day(tmp_path, "0", first)
    assert "| -0.010 ± 0.020 | 0.010 (of 1) |" in (tmp_path / "evidence.md").read_text()
    none = [c for c in cells() if not c["method"].startswith("chain")]
    write_day(tmp_path / "none", "0", none)
    page = (tmp_path / "none" / "evidence.md").read_text()
    assert "than the best of all on 0 of 0;" in page and "best of all's" not in page


def test_every_size_against_itself_alone(evidence):
    found = report.sizes(evidence)
    assert {size: row["difference"][0] for size, row in found.items()} == pytest.approx(
        {"0.5": -0.02, "0.7": 0.01, "0.9": -0.05}
    )
    assert all(row["alone_cpu_seconds"] == (10.0, 0.0) for row in found.values())


def test_the_main_methods_side_by_side(evidence):
    found = report.summary(evidence, 0.9)
    assert found["seeds"] == found["maxidisc"]["seeds"] == 2
    assert {name: found[name]["metric"][0] for name in ("minidisc", "direct", "maxidisc")} == pytest.approx(
        {"minidisc": 0.70, "direct": 0.65, "maxidisc": 0.71}
    )
    assert found["maxidisc"]["flops"][0] == 4000
    assert "ten_stages" not in found


def test_against_none_and_variants(evidence):
    rows = report.against_none(evidence, 0.9)
    assert rows["minidisc"]["less_direct"][0] == pytest.approx(((0.66 - 0.64) + (0.74 - 0.66)) / 2)
    assert rows["direct:max_steps=20"]["less_direct"] == (0.0, 0.0)
    assert rows["minidisc"]["flops"] == (1200, 0)
    assert report.ablation(evidence, 0.9) == {"direct:loss=logits": (pytest.approx(-0.03), pytest.approx(0.7))}


def test_every_variant_is_that_of_one_method_and_trained_in_some_part():
    variants = [variant for of in plans.ABLATION.values() for variant in of if "importance_on" not in variant]
    assert len(set(variants)) == len(variants)
    trained = plans.PLAN.methods(plans.PLAN.tasks["stsb"], plans.PARTS)
    assert {*variants, *plans.ABLATION} <= {*trained}


@pytest.mark.parametrize("part", plans.PARTS)
def test_each_part_can_be_asked_for_alone(part):
    methods = plans.PLAN.methods(plans.PLAN.tasks["stsb"], [part])
    assert {method.name for method in in_order([parse_method(name) for name in methods])} == {*methods}


def test_targets_can_be_asked_for():
    assert with_targets(PLAN, None) == PLAN
    assert with_targets(PLAN, [0.8, 0.95]) == dataclasses.replace(PLAN, targets=(0.8, 0.95))


def test_parameters_of_every_size():
    sizes = {"prunable": 8_000_000, "without_embeddings": 9_000_000}
    student = cell("direct", 0, 0.6, sizes={"without_embeddings": 1_700_000})
    evidence = report.Evidence(PLAN, "t", [{"cells": [student], "teacher": {"sizes": sizes}}])
    # What is not pruned, 1 M, stays.
    assert evidence.sizes_in_millions() == pytest.approx({0.5: 5.0, 0.7: 3.4, 0.9: 1.7})


def test_unfinished_seeds_are_left_out():
    some = [c for c in cells() if not (c["seed"] == 1 and c["method"] == "minidisc:assistants=0.7")]
    assert report.finding(report.Evidence(PLAN, "t", [{"cells": some}]), 0.9)["seeds"] == 1
    none = [c for c in cells() if c["method"] != "minidisc"]
    assert report.finding(report.Evidence(PLAN, "t", [{"cells": none}]), 0.9) is None


CONTENT = {
    "task": {"name": "t", "kind": "classification", "metrics": ["accuracy"]},
    "rows": {name: {"source": "x", "count": 1} for name in ("train", "selection", "validation")},
    "teacher": {
        "metrics": {"accuracy": 0.9, "metric": 0.9},
        "sizes": {"prunable": 1, "without_embeddings": 2, "all": 3},
    },
    "settings": {
        "max_steps": 10,
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "target_sparsities": [0.9],
    },
    "versions": {},
    "table": [],
    "failures": {},
}


def write_day(folder, day, part, **changes):
    """A comparison with these cells, and the report of it and of what was there."""
    comparison = folder / day / "t" / "comparison"
    comparison.mkdir(parents=True, exist_ok=True)
    (comparison / "compare.json").write_text(json.dumps({**CONTENT, **changes, "cells": part}))
    write(PLAN, [folder / day], folder / "evidence", "command")
    return json.loads((folder / "evidence.json").read_text())["tasks"]["t"]


def test_cells_of_another_day_are_kept(tmp_path):
    for seed, count in ((0, len(cells()) // 2), (1, len(cells()))):
        (found,) = write_day(tmp_path, str(seed), [c for c in cells() if c["seed"] == seed])
        assert len(found["cells"]) == count
    page = (tmp_path / "evidence.md").read_text()
    assert "| Task | 90 % | 2 | 0.700 ± 0.040 | 0.710 ± 0.060 | 0.710 ± 0.060 |" in page
    # 0.01 worse, with a standard error of 0.02; at 0.3 of the FLOPs.
    assert (
        "search's pick on 1 of 1 pairs, than the best of all on 1 of 1; at a fifth of the search's FLOPs or less on "
        "0. Its metric less the search's is -0.0100 in the mean over pairs, less the best of all's -0.0100; "
        "-0.0100 in that over tasks, each with the mean of its targets." in page
    )
    assert "In the mean over 1 pairs the difference of `minidisc` is 0.0500; in that over tasks, each with" in page
    assert "picks is 0.0225 over the mean of all that it has tried, and 0.0000 over the best of it (1 pairs)" in page
    for name in ("t", "fronts"):
        assert (tmp_path / f"evidence-{name}.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize("method", ["minidisc", "direct"])
def test_no_mean_is_over_sandwiches_of_other_targets(tmp_path, method):
    write_day(tmp_path, "one", [cell(method, 0, 0.6)])
    before = (tmp_path / "evidence.json").read_text()
    settings = {**CONTENT["settings"], "target_sparsities": [0.95, 0.9]}
    if method == "direct":
        (found,) = write_day(tmp_path, "two", [cell(method, 1, 0.5)], settings=settings)
        assert [c["targets"] for c in found["cells"]] == [[0.9], [0.9, 0.95]]
        return
    with pytest.raises(UserError, match="sandwich for 90 % with seed 0, and of one for 90, 95 % with seed 1"):
        write_day(tmp_path, "two", [cell(method, 1, 0.5)], settings=settings)
    assert (tmp_path / "evidence.json").read_text() == before
    # Trained once more, a seed is of the other sandwich alone.
    (found,) = write_day(tmp_path, "two", [cell(method, 0, 0.5), cell("direct", 3, 0.5)], settings=settings)
    assert "trains each of their sizes at every step: 90, 95 % on Task. " in (tmp_path / "evidence.md").read_text()
    assert [(c["seed"], c["targets"]) for c in found["cells"]] == [(0, [0.9, 0.95]), (3, [0.9, 0.95])]


def test_cells_of_another_importance_have_its_name(tmp_path):
    folder = tmp_path / "day" / "t" / "comparison-unlabelled"
    folder.mkdir(parents=True)
    content = {**CONTENT, "cells": [cell("direct", seed, 0.61) for seed in (0, 1)]}
    (folder / "compare.json").write_text(json.dumps(content))
    write_day(tmp_path, "day", cells())
    # Both times 0.61 instead of 0.65.
    page = (tmp_path / "evidence.md").read_text()
    assert "| `direct:importance_on=teacher` | `direct` | 1 | -0.040 | 1.00 |" in page


def test_teachers_are_kept_apart(tmp_path):
    for day, accuracy in (("one", 0.9), ("two", 0.91)):
        metrics = {"accuracy": accuracy, "metric": accuracy}
        # The same seed of two teachers; nothing but the second teacher's student has changed.
        part = [cell("direct:max_steps=20", 0, 0.64), cell("minidisc", 0, 0.65 if day == "one" else 0.67)]
        found = write_day(tmp_path, day, part, teacher={**CONTENT["teacher"], "metrics": metrics})
    assert [len(each["cells"]) for each in found] == [2, 2]
    # 0.01 and 0.03 better: 0.02 ± 0.01.
    assert "| `minidisc` | 0.660 ± 0.010 | 0.020 ± 0.010 |" in (tmp_path / "evidence.md").read_text()
    # A seed that is added goes to its own teacher.
    part = [cell("direct:max_steps=20", 1, 0.64), cell("minidisc", 1, 0.65)]
    metrics = {"accuracy": 0.9 + 1e-7, "metric": 0.9}
    found = write_day(tmp_path, "three", part, teacher={**CONTENT["teacher"], "metrics": metrics})
    assert sorted(len(each["cells"]) for each in found) == [2, 4]
    # Two of the three seeds have the teacher of 0.9.
    assert "| Task | 90 % | 3 | 0.903 | 0.657 ± 0.007 |" in (tmp_path / "evidence.md").read_text()


def test_cells_of_a_gpu_have_no_cpu_seconds(tmp_path):
    write_day(tmp_path, "cpu", cells())
    before = json.loads((tmp_path / "evidence.json").read_text())
    # The very same figures, also of the teacher, but for the CPU's.
    of_gpu = json.loads(json.dumps(cells()))
    for own in of_gpu:
        own["machine"] = "AMD, cuda (NVIDIA H100), torch threads 1"
        for cost in (own["cost"], *own["stages"].values()):
            cost["cpu_seconds"] **= 2
    found = write_day(tmp_path, "gpu", of_gpu)
    assert [len(each["cells"]) for each in found] == [len(cells()), len(cells())]
    after = json.loads((tmp_path / "evidence.json").read_text())
    (one,), (both,) = (figures["against_all"]["minidisc"] for figures in (before, after))
    assert (one["seeds"], both["seeds"]) == (2, 4)
    assert one["cpu_seconds"] == both["cpu_seconds"]
    assert one["less_best"][0] == pytest.approx(both["less_best"][0])
    assert before["sizes"]["t"]["0.7"]["alone_cpu_seconds"] == after["sizes"]["t"]["0.7"]["alone_cpu_seconds"]
