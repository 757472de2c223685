import copy
import json

import numpy as np
import pytest
import yaml

from minidisc.comparison import gather
from minidisc.errors import UserError
from tests.unit.comparison.test_table import cell


def write(folder, cells, rows="r", **settings):
    """A comparison's folder as `compare` leaves it."""
    content = {
        "task": {"name": "t", "kind": "classification", "metrics": ["accuracy"]},
        "rows": {name: {"count": 10, "source": "dev"} for name in ("train", "selection", "validation")},
        "teacher": {"metrics": {"accuracy": 0.9}, "sizes": {"prunable": 1e6, "without_embeddings": 2e6, "all": 3e6}},
        "table": [],
        "cells": cells,
        "failures": {},
        "settings": {
            **{"methods": ["minidisc", "direct"], "target_sparsities": [0.9]},
            "seeds": sorted({c["seed"] for c in cells}),
            **{"max_steps": 5, "batch_size": 4, "learning_rate": 1e-4, "output_dir": str(folder)},
            **{"dropout": 0.0, "loss": "hidden+logits", **settings},
        },
        "versions": {},
    }
    folder.mkdir()
    (folder / "compare.json").write_text(json.dumps(content))
    (folder / "run.yaml").write_text(yaml.safe_dump({"fingerprints": {"rows": rows, "teacher_weights": "w"}}))
    return folder


SCORES = {0: 0.7, 1: 0.72, 4: 0.77}


def folders(tmp_path):
    return [
        write(tmp_path / str(seed), [cell("direct", 0.9, seed, 0.6), cell("minidisc", 0.9, seed, score)])
        for seed, score in SCORES.items()
    ]


def test_the_table_is_over_all_seeds(tmp_path):
    found = gather(folders(tmp_path), tmp_path / "all")
    assert [(row["method"], row["seeds"]) for row in found.rows] == [("minidisc", [0, 1, 4]), ("direct", [0, 1, 4])]
    scores = list(SCORES.values())
    expected = np.mean(scores), np.std(scores, ddof=1) / 3**0.5
    assert found.rows[0]["metrics"]["accuracy"] == pytest.approx(expected)
    assert json.loads((tmp_path / "all" / "compare.json").read_text())["settings"]["seeds"] == [0, 1, 4]
    assert "| minidisc | 90 % | 3 | 0.730 ± 0.021 |" in (tmp_path / "all" / "compare.md").read_text()


def test_what_was_gathered_is_gathered_with_more(tmp_path):
    *some, last = folders(tmp_path)
    at_once = gather([*some, last], tmp_path / "all")
    gather(some, tmp_path / "some")
    one_more = gather([tmp_path / "some", last], tmp_path / "more")
    assert one_more.rows == at_once.rows
    other = write(tmp_path / "other", [cell("minidisc", 0.9, 9, 0.5)], rows="others")
    with pytest.raises(UserError, match=r"other differs from .*some in rows"):
        gather([tmp_path / "some", other], tmp_path / "both")


@pytest.mark.parametrize("older_first", [True, False])
@pytest.mark.parametrize(("value", "together"), [(None, True), (["text", "more"], False)])
def test_a_setting_that_an_older_version_did_not_have_had_its_default(tmp_path, value, together, older_first):
    older = write(tmp_path / "older", [cell("direct", 0.9, 0, 0.6)])
    newer = write(tmp_path / "newer", [cell("direct", 0.9, 1, 0.8)], text_columns=value, latency_batch_size=1)
    given = [older, newer] if older_first else [newer, older]
    if together:
        assert gather(given, tmp_path / "all").rows[0]["metrics"]["accuracy"][0] == pytest.approx(0.7)
        return
    with pytest.raises(UserError, match=r"differs from .* in text_columns; only"):
        gather(given, tmp_path / "all")


@pytest.mark.parametrize("newer_first", [True, False])
def test_a_setting_that_only_a_newer_version_has_is_another_one(tmp_path, newer_first):
    newer = write(tmp_path / "newer", [cell("direct", 0.9, 0, 0.6)], not_yet=1)
    other = write(tmp_path / "other", [cell("direct", 0.9, 1, 0.8)])
    with pytest.raises(UserError, match=r"differs from .* in not_yet; only"):
        gather([newer, other] if newer_first else [other, newer], tmp_path / "all")


def test_what_changes_no_figure_may_differ(tmp_path):
    one = write(tmp_path / "one", [cell("direct", 0.9, 0, 0.6)], report_to=["tensorboard"], examples=True)
    free = {"report_to": None, "examples": False, "keep_sizes": False, "keep_checkpoints": True}
    other = write(tmp_path / "other", [cell("direct", 0.9, 1, 0.8)], **free)
    assert gather([one, other], tmp_path / "all").rows[0]["seeds"] == [0, 1]


def test_methods_that_are_refused_now_are_still_gathered(tmp_path):
    name = "minidisc:epochs=2:flops_of=finetune:loss=pkd"
    one, other = (write(tmp_path / str(seed), [cell(name, 0.9, seed, 0.6)]) for seed in (0, 1))
    more = write(tmp_path / "more", [cell(name, 0.9, 2, 0.6)], target_sparsities=[0.9, 0.95])
    assert gather([one, other, more], tmp_path / "all").rows[0]["seeds"] == [0, 1, 2]


@pytest.mark.parametrize("left", [None, {}])
def test_a_comparison_that_does_not_say_what_it_is_of(tmp_path, left):
    made = folders(tmp_path)
    file = made[1] / "run.yaml"
    file.unlink() if left is None else file.write_text(yaml.safe_dump({"fingerprints": left}))
    with pytest.raises(UserError, match="1 does not say of which teacher and rows it is"):
        gather(made, tmp_path / "all")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": "others"}, "differs from .*0 in rows"),
        ({"learning_rate": 1.0}, "in learning_rate"),
        ({"dropout": 0.1}, "in dropout"),
        ({"loss": "logits"}, "in loss"),
        ({}, "seed 1, once more"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, changes, message):
    seed = 1 if not changes else 9
    other = write(tmp_path / "other", [cell("minidisc", 0.9, seed, 0.5)], **copy.deepcopy(changes))
    with pytest.raises(UserError, match=message):
        gather([*folders(tmp_path), other], tmp_path / "all")
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("method", "targets", "together"),
    [
        ("minidisc", [0.9], True),
        ("minidisc", [0.9, 0.95], False),
        ("minidisc:stages=1", [0.9, 0.95], False),
        ("direct:flops_of=minidisc:stages=3", [0.9, 0.95], False),
        ("direct:flops_of=chain:assistants=0.6", [0.9, 0.95], True),
        ("maxidisc", [0.9, 0.95], True),
        ("finetune", [0.9, 0.95], True),
    ],
)
def test_no_mean_is_over_sandwiches_of_other_targets(tmp_path, method, targets, together):
    one = write(tmp_path / "one", [cell(method, 0.9, 0, 0.6)])
    more = write(tmp_path / "more", [cell(method, 0.95, 0, 0.3)], target_sparsities=[0.95])
    other = write(tmp_path / "other", [cell(method, 0.9, 1, 0.5)], target_sparsities=targets)
    # What was gathered keeps each cell's own; and other targets' rows are none that it has a mean with.
    gather([one, more], tmp_path / "some")
    if together:
        first, _ = gather([tmp_path / "some", other], tmp_path / "all").rows
        assert first["metrics"]["accuracy"][0] == pytest.approx(0.55)
        return
    with pytest.raises(UserError, match=r"sandwich for 90 % with seed 0, and of one for 90, 95 % with seed 1"):
        gather([tmp_path / "some", other], tmp_path / "all")


def test_folders_without_a_comparison_and_those_that_are_there(tmp_path):
    with pytest.raises(UserError, match="holds no comparison"):
        gather([tmp_path], tmp_path / "all")
    with pytest.raises(UserError, match="exists; give a folder"):
        gather(folders(tmp_path), tmp_path)
    with pytest.raises(UserError, match="no comparison is given"):
        gather([], str(tmp_path / "all"))


def test_what_failed_here_and_was_finished_there(tmp_path):
    made = folders(tmp_path)
    file = made[0] / "compare.json"
    content = json.loads(file.read_text())
    content["failures"] = {"minidisc at 90 %, seed 1": "no memory", "c at 90 %, seed 0": "no memory"}
    file.write_text(json.dumps(content))
    assert gather(made, tmp_path / "all").failures == {"c at 90 %, seed 0": "no memory"}
