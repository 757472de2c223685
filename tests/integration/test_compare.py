"""Comparisons of a tiny teacher's students: what is shared, what goes on after a failure, and bad input."""

import itertools
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import minidisc
from minidisc import runs
from minidisc.cli.main import main
from minidisc.comparison import cells, compare, gather
from minidisc.comparison.methods import UNREAD, read_method
from minidisc.errors import UserError
from minidisc.listening import LoggingListener
from minidisc.preparation import Preparation
from minidisc.runs import read_fingerprints
from minidisc.trainer import SandwichTrainer
from tests.integration import tiny

METHODS = (
    "minidisc",
    "minidisc:stages=1",
    "direct",
    "direct:loss=logits",
    "direct:loss=pkd",
    "direct:loss=minilm",
    "direct:student=layers",
    "finetune",
    "maxidisc",
    "chain:assistants=0.25/0.5",
    "minidisc:stages=3",
    "minidisc:candidates_per_step=all",
    "direct:flops_of=minidisc",
)


# Nothing stops early.
BRIEF = {"epochs": 1, "evaluations_per_epoch": 1, "patience": 99}


def settings(workplace, folder, **changes):
    given = tiny.settings(workplace, folder, **BRIEF, tradeoff_lambda=0.0)
    del given["target_sparsity"]
    return {**given, "target_sparsities": (0.75, 0.9), "seeds": (0,), "methods": METHODS, **changes}


@pytest.fixture(scope="module")
def trained():
    """Names of the stages in the order in which they were trained; the first candidate is always chosen."""
    names = []
    original = SandwichTrainer.train

    def train(self, *args, **kwargs):
        names.append(self._folder.path.name)
        return original(self, *args, **kwargs)

    # On this easy task the student's own size would win, and there would be no second stage.
    schedule = sys.modules["minidisc.schedules.minidisc"]
    choose = schedule.choose_assistant
    SandwichTrainer.train, schedule.choose_assistant = train, lambda candidates: candidates[0]
    yield names
    SandwichTrainer.train, schedule.choose_assistant = original, choose


@pytest.fixture(scope="module")
def counted():
    """The settings and stages of each cell that the disk is to hold."""
    found, original = [], cells.disk_of_cells

    def disk_of_cells(shape, own, lengths):
        found.extend(own)
        return original(shape, own, lengths)

    cells.disk_of_cells = disk_of_cells
    yield found
    cells.disk_of_cells = original


@pytest.fixture(scope="module")
def comparison(workplace, tmp_path_factory, trained, counted):
    return compare(**settings(workplace, tmp_path_factory.mktemp("comparisons") / "all"))


def cell(comparison, method, target=0.75, seed=0):
    (found,) = [
        c
        for c in comparison.content["cells"]
        if (c["method"], c["target_sparsity"], c["seed"]) == (method, target, seed)
    ]
    return found


def test_every_cell_is_there(comparison):
    assert len(comparison.content["cells"]) == len(METHODS) * 2
    assert not comparison.failures
    assert [(row["method"], row["target_sparsity"]) for row in comparison.rows] == [
        (method, target) for target in (0.75, 0.9) for method in METHODS
    ]
    assert all(row["seeds"] == [0] for row in comparison.rows)
    # A copy of compare.json alone can be gathered.
    assert comparison.content["fingerprints"] == read_fingerprints(comparison.output_dir)
    page = (comparison.output_dir / "compare.md").read_text()
    assert all(f"| {method} |" in page for method in METHODS)


def test_equal_work_is_done_once(comparison, trained, counted):
    assert len(trained) == len(set(trained))
    # One sandwich with the default rule, and one with all candidates, for both targets.
    assert sum(name.startswith("sandwich-1") for name in trained) == 2
    own = [stages for cell, stages in counted if Path(cell.output_dir) == comparison.output_dir]
    assert len(own) == 2 * len(METHODS)
    sandwiches = {key for (key, specs), *_ in own if len(specs) > 1}
    assert len(sandwiches) == 2
    # Two assistants for maxidisc at both targets; the first is the chain's too, which adds one of its own.
    assert sum(name.startswith("assistant-") for name in trained) == 3


def test_a_cell_that_shares_work_is_charged_for_it(comparison):
    for target in (0.75, 0.9):
        one, other = cell(comparison, "minidisc", target), cell(comparison, "minidisc:stages=1", target)
        assert one["stages"]["sandwich-1"] == other["stages"]["sandwich-1"]
        assert one["cost"]["flops"] > other["cost"]["flops"]


def test_targets_that_keep_the_same_layers_share_their_student(comparison):
    """One layer of three is nearest to both."""
    one, other = (cell(comparison, "direct:student=layers", target) for target in (0.75, 0.9))
    assert one["metrics"] == other["metrics"]
    # To the second: they were trained once.
    assert one["stages"]["student"] == other["stages"]["student"]


def test_equal_flops_are_nearly_equal(comparison):
    own, other = cell(comparison, "direct:flops_of=minidisc"), cell(comparison, "minidisc")
    step = cell(comparison, "direct")["stages"]["student"]
    spent, wanted = (
        sum(cost["flops"] for name, cost in c["stages"].items() if name != "importance") for c in (own, other)
    )
    # To within half a step; steps differ a little.
    assert spent == pytest.approx(wanted, abs=0.75 * step["flops"] / step["steps"])


def test_equal_flops_keep_the_teachers_outputs_where_their_own_steps_repeat(comparison, workplace, tmp_path):
    # An epoch of the sandwich is worth several of the student, whose teacher then runs once on every row.
    stages = cell(comparison, "direct:flops_of=minidisc")["stages"]
    assert stages["outputs of teacher"]["flops"] > 0
    # Two epochs without a teacher are worth less than one of its passes over all rows.
    methods = "finetune", "direct:flops_of=finetune"
    given = {"methods": methods, "target_sparsities": (0.9,), "epochs": 2}
    found = compare(**settings(workplace, tmp_path / "c", **given))
    (own,) = (stage for stage in cell(found, methods[1], 0.9)["stages"].items() if stage[0] != "importance")
    assert own[0] == "student"
    wanted = cell(found, "finetune", 0.9)["stages"]["student"]["flops"]
    assert own[1]["steps"] > 1
    assert own[1]["flops"] == pytest.approx(wanted, abs=0.75 * own[1]["flops"] / own[1]["steps"])


def test_equal_flops_are_spent_whatever_the_common_patience(workplace, tmp_path):
    methods = "finetune:patience=99", "finetune:flops_of=finetune:patience=99"
    methods += ("finetune:patience=1:flops_of=finetune:patience=99",)
    # At this rate nothing is ever learnt.
    given = {"patience": 1, "learning_rate": 1e-12, "epochs": 3, "target_sparsities": (0.9,)}
    found = compare(**settings(workplace, tmp_path / "c", methods=methods, **given))
    other, own, impatient = (cell(found, method, 0.9)["stages"]["student"] for method in methods)
    assert own["steps"] == other["steps"]
    assert own["flops"] == pytest.approx(other["flops"])
    assert impatient["steps"] < own["steps"]


def test_the_final_rows_of_all_seeds_are_the_same_where_training_rows_have_no_labels(workplace, tmp_path):
    text = (workplace / "train.csv").read_text().replace(",pro", ",").replace(",contra", ",")
    (tmp_path / "unlabelled.csv").write_text(text)
    given = {"methods": ("direct",), "target_sparsities": (0.9,), "max_steps": 1, "seeds": (0, 1)}
    scored = []
    original = Preparation.evaluate

    def evaluate(self, model, rows):
        scored.append((rows, self.rows.readable(rows)))
        return original(self, model, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Preparation, "evaluate", evaluate)
        compare(**settings(workplace, tmp_path / "c", **given, train_file=str(tmp_path / "unlabelled.csv")))
    (_, one), (_, other) = (entry for entry in scored if entry[0] == "validation")
    assert one == other


def test_a_search_without_candidates_is_refused(workplace, tmp_path):
    given = {"methods": ("direct", "maxidisc"), "target_sparsities": (0.1, 0.75), "grid": None}
    with pytest.raises(UserError, match=r"no assistant to try for a target sparsity of 0\.1; give --grid"):
        compare(**settings(workplace, tmp_path / "c", **given))
    assert not (tmp_path / "c").exists()


def test_importance_that_fails_is_tried_again_in_the_next_cell(workplace, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("minidisc.preparation.order_by_importance", full)
    found = compare(**settings(workplace, tmp_path / "c", methods=("direct", "finetune"), target_sparsities=(0.75,)))
    assert {*found.failures.values()} == {"out of memory"}
    assert len(found.failures) == 2


def test_the_search_tries_every_candidate_and_keeps_the_best(comparison):
    found = cell(comparison, "maxidisc")
    assert [trial["assistant"] for trial in found["trials"]] == [0.25, 0.5]
    best = max(trial["student_metrics"]["metric"] for trial in found["trials"])
    assert found["selection_metrics"]["metric"] == best
    assert found["cost"]["steps"] == 4 * cell(comparison, "direct")["cost"]["steps"]
    assert [a["sparsity"] for a in cell(comparison, "chain:assistants=0.25/0.5")["assistants"]] == [0.25, 0.5]


def test_methods_that_differ_give_different_students(workplace, tmp_path):
    # One target, so that the sandwich holds no more than a run of its own does.
    run = minidisc.compress(**tiny.settings(workplace, tmp_path / "run", schedule="direct", **BRIEF))
    alone = compare(**settings(workplace, tmp_path / "one", methods=("direct", "minidisc"), target_sparsities=(0.75,)))
    assert cell(alone, "direct")["metrics"] == run.student.metrics
    assert cell(alone, "direct")["cost"]["flops"] == run.cost.flops
    assert cell(alone, "direct")["cost"]["flops"] < cell(alone, "minidisc")["cost"]["flops"]


def test_what_is_finished_is_not_trained_again_and_methods_can_be_added(workplace, tmp_path, trained):
    given = settings(workplace, tmp_path / "c", methods=("direct",), keep_checkpoints=True)
    start = len(trained)
    first = compare(**given)
    before = len(trained)
    again = compare(**given, resume=True)
    assert len(trained) == before
    assert again.content["cells"] == first.content["cells"]
    more = compare(**{**given, "methods": ("direct", "minidisc"), "seeds": (0, 1)}, resume=True)
    assert len(more.content["cells"]) == 8
    assert [(row["method"], row["seeds"]) for row in more.rows] == [("direct", [0, 1]), ("minidisc", [0, 1])] * 2
    assert cell(more, "direct") == cell(first, "direct")
    # One sandwich of a seed, for both targets.
    assert sum(name.startswith("sandwich-1") for name in trained[start:]) == 2
    assert len(trained[start:]) == len(set(trained[start:]))
    # What is not asked for this time stays in the table.
    fewer = compare(**{**given, "methods": ("minidisc",), "seeds": (1,)}, resume=True)
    assert all(fewer.content["cells"].count(c) == 1 for c in more.content["cells"])
    assert [row["method"] for row in fewer.rows] == ["minidisc", "direct"] * 2


def test_what_methods_cannot_be_given_would_change_nothing(workplace, tmp_path, trained, monkeypatch):
    """Each value is none that others of the same comparison have, and no stage is trained for it."""
    values = {
        "candidates_per_step": "all",
        "decay_over": "run",
        "loss": "pkd",
        "no_gap": "stop",
        "sandwich_share": "0.1",
        "second_importance": "assistant",
        "second_learning_rate": "0.1",
        "second_stage": "sandwich",
        "second_teacher": "both",
        "stages": "4",
        "tradeoff_lambda": "1",
    }
    plain = {"chain": "chain:assistants=0.25"}
    methods = {
        schedule: [plain.get(schedule, schedule)]
        + [f"{plain.get(schedule, schedule)}:{name}={values[name]}" for name in names]
        for schedule, names in UNREAD.items()
    }
    monkeypatch.setattr(cells, "parse_method", read_method)
    names = [*itertools.chain(*methods.values())]
    given = settings(workplace, tmp_path / "c", methods=names, target_sparsities=(0.75,))
    start = len(trained)
    found = compare(**{**given, "max_steps": 1})
    assert not found.failures
    # The search's assistants, of which the chain has one, and a student through each; those without an assistant.
    assert len(trained[start:]) == 2 + 2 + 2
    for own in methods.values():
        first, *others = ({**cell(found, name), "method": ""} for name in own)
        assert all(other == first for other in others)


def test_a_cell_that_fails_is_reported_and_the_rest_goes_on(workplace, tmp_path, monkeypatch, capsys):
    original = SandwichTrainer.train_batch

    def diverging(self, model, inputs):
        if self.args.loss == "logits":
            raise FloatingPointError("the loss is not a number")
        return original(self, model, inputs)

    monkeypatch.setattr(SandwichTrainer, "train_batch", diverging)
    given = settings(
        workplace, tmp_path / "c", methods=("direct:loss=logits", "direct", "direct:flops_of=direct:loss=logits")
    )
    flags = {
        name.replace("_", "-"): ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in given.items()
    }
    arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *arguments])
    assert stopped.value.code == 1
    assert "failed: direct:loss=logits at 75 %, seed 0: the loss is not a number" in capsys.readouterr().out
    content = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert [c["method"] for c in content["cells"]] == ["direct", "direct"]
    assert len(content["failures"]) == 4
    waiting = content["failures"]["direct:flops_of=direct:loss=logits at 75 %, seed 0"]
    assert waiting == "the cell of direct:loss=logits failed, whose FLOPs it was to be given."

    monkeypatch.undo()
    main(["compare", *arguments, "--resume"])
    content = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert len(content["cells"]) == 6
    assert not content["failures"]


def test_checkpoints_stay_while_cells_that_were_once_asked_for_are_missing(workplace, tmp_path):
    given = settings(workplace, tmp_path / "c", target_sparsities=(0.75,), max_steps=1)
    original = SandwichTrainer.train_batch

    def killed(self, model, inputs):
        if self.args.loss == "logits":
            raise KeyboardInterrupt
        return original(self, model, inputs)

    methods = "direct", "direct:loss=logits", "finetune"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SandwichTrainer, "train_batch", killed)
        compare(**{**given, "methods": methods})
    for fewer, stays in (((methods[0],), True), ((methods[0],), True), (methods[1:], False)):
        compare(**{**given, "methods": fewer}, resume=True)
        assert (tmp_path / "c" / "checkpoints").is_dir() is stays


def test_the_time_left_is_that_of_missing_cells(workplace, tmp_path, monkeypatch):
    given = settings(workplace, tmp_path / "c", target_sparsities=(0.75,), max_steps=1)
    methods = "direct", "direct:loss=logits", "finetune"
    compare(**{**given, "methods": methods[-1:]})
    seconds, told = itertools.count(step=10), []
    monkeypatch.setattr(cells, "time", SimpleNamespace(monotonic=lambda: next(seconds)))

    class Listening(LoggingListener):
        def cell(self, title, number, of, seconds_left):
            told.append((number, of, seconds_left))

    compare(**{**given, "methods": methods}, resume=True, listener=Listening())
    # The first took from 0 to 20, and the third was there.
    assert told == [(1, 3, None), (2, 3, 20)]


def test_cells_share_no_outputs_but_their_own(workplace, tmp_path, trained):
    """Over two epochs teachers' outputs are kept, and losses, depths and teachers want others."""
    own = ("", ":second_teacher=teacher", ":second_teacher=both")
    methods = ("direct", "direct:loss=logits", "direct:student=layers", *(f"minidisc{name}" for name in own))
    start = len(trained)
    given = settings(workplace, tmp_path / "c", methods=methods, target_sparsities=(0.75,), keep_checkpoints=True)
    found = compare(**{**given, "epochs": 2, "max_train_rows": 80})
    assert not found.failures
    # The teacher's states and logits, logits alone, those for a student of one layer, and an assistant's.
    assert len([*(tmp_path / "c" / "checkpoints" / "outputs").glob("*/layout.json")]) == 4
    # A student for every method, and one sandwich for three of them.
    assert sum(name.startswith("student-") for name in trained[start:]) == len(methods)
    assert sum(name.startswith("sandwich-1") for name in trained[start:]) == 1
    for name, teachers in zip(own, (["25 %"], ["teacher"], ["25 %", "teacher"]), strict=True):
        stages = cell(found, f"minidisc{name}")["stages"]
        assert {"outputs of teacher", *(f"outputs of {teacher}" for teacher in teachers)} == {
            stage for stage in stages if stage.startswith("outputs")
        }


def test_all_seeds_train_on_the_same_rows(workplace, tmp_path, monkeypatch):
    """A seed draws what is held out of them, and what is a batch."""
    used = {}

    class Noting(Preparation):
        def rank(self, file):
            super().rank(file)
            used[self.settings.seed] = {use: self.rows.readable(use) for use in ("train", "selection")}

    monkeypatch.setattr(cells, "Preparation", Noting)
    given = settings(workplace, tmp_path / "c", methods=("direct",), seeds=(0, 1), target_sparsities=(0.75,))
    compare(**{**given, "max_steps": 1, "max_train_rows": 80})
    assert sorted(used) == [0, 1]
    assert used[0]["selection"] != used[1]["selection"]
    everything = [sorted(rows["train"] + rows["selection"]) for rows in used.values()]
    assert everything[0] == everything[1]
    assert len(everything[0]) == 80


def test_a_target_is_compared_with_its_own_candidates(workplace, tmp_path):
    """Not with those of the target that compress has by default."""
    given = settings(workplace, tmp_path / "c", methods=("minidisc",), target_sparsities=(0.95,))
    found = compare(**{**given, "grid": (0.9,), "max_steps": 1, "assistants": (0.9,)})
    assert not found.failures
    assert [c["sparsity"] for c in cell(found, "minidisc", 0.95)["candidates"]] == [0.9, 0.95]


def test_seeds_of_another_teacher_or_other_rows_do_not_share_a_table(workplace, tmp_path):
    shutil.copytree(workplace, tmp_path / "w")
    given = settings(tmp_path / "w", tmp_path / "c", methods=("direct",), target_sparsities=(0.75,), seeds=(0, 1))
    given["max_steps"] = 1
    files = tmp_path / "w" / "train.csv", tmp_path / "w" / "teacher" / "config.json"
    before = [file.read_text() for file in files]

    class Changing(LoggingListener):
        def cell(self, title, number, of, seconds_left):
            if number == 2:
                files[0].write_text(before[0].replace("word1 ", "word2 "))
                files[1].write_text(before[1] + "\n")

    changed = r"comparison began \(rows was '\w+' and is now '\w+'; teacher_weights was '\w+' and is now '\w+'\)"
    with pytest.raises(UserError, match=changed):
        compare(**given, listener=Changing())
    content = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert [c["seed"] for c in content["cells"]] == [0]
    assert not content["failures"]
    for file, text in zip(files, before, strict=True):
        file.write_text(text)
    record = (tmp_path / "c" / "run.yaml").read_text()
    (tmp_path / "c" / "run.yaml").write_text(re.sub(r"(?<=  torch: ).*", "1.13.0", record))
    content = compare(**given, resume=True).content
    assert [c["seed"] for c in content["cells"]] == [0, 1]
    (warning,) = content["warnings"]
    assert warning.startswith("begun with torch 1.13.0, goes on with torch 2.")
    assert warning in (tmp_path / "c" / "compare.md").read_text()
    assert [c["versions"] for c in content["cells"]] == [runs.versions()] * 2


def test_a_student_that_knows_nothing_is_pointed_out(workplace, tmp_path, monkeypatch, caplog):
    given = settings(workplace, tmp_path / "c", methods=("direct", "finetune"), target_sparsities=(0.75,))
    given |= {"max_steps": 1, "learning_rate": 1e-9}
    score = Preparation.evaluate

    def at_chance(self, model, use):
        found = score(self, model, use)
        return found if use == "selection" else dict.fromkeys(found, 0.5)

    monkeypatch.setattr(Preparation, "evaluate", at_chance)
    content = compare(**given).content
    lines = [
        f"the student of {name} at 75 %, seed 0 scores 0.500 on 60 rows where chance is 0.500: it may give one answer "
        "to everything."
        for name in ("direct", "finetune")
    ]
    assert content["warnings"] == lines
    assert [line for line in caplog.messages if "chance" in line] == lines
    # Those of finished cells stay, and with them those of cells that are added.
    monkeypatch.setattr(Preparation, "evaluate", lambda *args: dict.fromkeys(score(*args), 0.9))
    again = compare(**{**given, "methods": ("direct:loss=logits",)}, resume=True)
    assert again.content["warnings"] == lines
    page = (tmp_path / "c" / "compare.md").read_text()
    assert all(f"- {line}" in page for line in lines)
    gathered = gather([tmp_path / "c"], tmp_path / "g")
    assert gathered.content["warnings"] == lines


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": "distil"}, "a method begins with one of"),
        ({"methods": "direct,direct"}, "holds something twice"),
        ({"methods": "chain:assistants=0.95"}, "between 0 and the target"),
        ({"methods": "minidisc:assistants=0.3"}, "allowed are 0.25, 0.5"),
        ({"target-sparsities": "0"}, "--target-sparsities holds 0"),
        ({"target-sparsities": "0.75,0.7501"}, "gives the same network"),
        ({"seeds": "a"}, "seeds is 'a'"),
        ({"seeds": "1,1"}, "--seeds holds something twice"),
        ({"seeds": "-1"}, "--seeds holds -1; allowed is from 0 to 4294967295"),
    ],
)
def test_bad_input_is_one_line(workplace, tmp_path, capsys, changes, words):
    flags = {
        "teacher": str(workplace / "teacher"),
        "train-file": str(workplace / "train.csv"),
        "validation-file": str(workplace / "validation.csv"),
        "grid": "0.25,0.5",
        "target-sparsities": "0.75",
        "max-length": "16",
        "output-dir": str(tmp_path / "c"),
        **changes,
    }
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *[part for name, value in flags.items() for part in (f"--{name}", value)]])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("minidisc: ")
    assert error.count("\n") == 1
    assert words in error
    assert not (tmp_path / "c").exists()
