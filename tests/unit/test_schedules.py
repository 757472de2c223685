"""What each schedule trains, and who teaches: the stages are recorded, nothing is trained."""

from dataclasses import dataclass, field, fields
from types import SimpleNamespace

import pytest

from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings
from minidisc.results import Cost
from minidisc.schedules import SCHEDULES, Job, Network, planned
from minidisc.selection import Candidate
from minidisc.subnetworks import SubnetworkSpec
from tests.unit.families import BERT


def spec(sparsity):
    return SubnetworkSpec(sparsity, (1,), (int(1000 * (1 - sparsity)),))


GRID = [spec(s) for s in (0.5, 0.6, 0.7, 0.8, 0.9)]


class RecordedStage:
    """Stands for a trained stage; ``metrics`` says what each size scores, and may say it of one stage by its name."""

    def __init__(self, name, candidates, metrics):
        self.name, self.metrics, self.specs = name, metrics, candidates
        best = [SimpleNamespace(metrics={"metric": metrics[c.sparsity]}, step=1) for c in candidates]
        names = [c.name for c in candidates]
        self.trainer = SimpleNamespace(best=best, networks=names, history=[], cost=Cost(steps=1))
        self.outputs, self.kept = {}, []

    def network(self, of, width=None):
        width = width or of
        return Network(f"{self.name}: {width.name} with the weights of {of.name}", object(), width.name)

    def table(self, job):
        return self.candidates(job, self.specs)

    def candidates(self, job, specs):
        lam = job.settings.tradeoff_lambda
        return [
            Candidate(c, None, {"metric": self.metrics[c.sparsity]}, 1, self.metrics[c.sparsity] + lam * c.sparsity)
            for c in specs
        ]


REORDERED = SubnetworkSpec(0.9, (2,), (3,))


@dataclass
class Recorder(Job):
    """A job that notes what it is to train: (stage, teachers, source, candidates)."""

    metrics: dict = field(default_factory=dict)
    stages: list = field(default_factory=list)
    rates: list = field(default_factory=list)

    def train(self, stage, teachers, source, candidates, number=None, left_out=0):
        assert number == (int(stage[-1]) if stage.startswith("sandwich") else None)
        own = self.settings.of_stage(10, number, left_out)
        self.rates.append((own.learning_rate, own.final_learning_rate))
        self.stages.append((stage, [t.weights for t in teachers], source.weights, [c.sparsity for c in candidates]))
        return RecordedStage(stage, candidates, {**self.metrics, **self.metrics.get(stage, {})})

    def reordered(self, assistant, widths):
        return Network(f"{assistant.weights}, reordered", object()), REORDERED, Cost(flops=7.0)

    def untrained_student(self):
        return self.teacher, self.target


def run(metrics=None, pool=None, **settings):
    given = CompressSettings(teacher="t", output_dir="o", tradeoff_lambda=0.2, **settings)
    job = Recorder(**dict.fromkeys(f.name for f in fields(Job)))
    job.settings, job.teacher = given, Network("teacher", object())
    job.candidates, job.pool, job.spec = GRID, pool or GRID, spec
    # Falling by more than λ · 0.1 behind 70 %, by less before it: 70 % has the largest tradeoff.
    job.metrics = metrics or {0.5: 0.90, 0.6: 0.89, 0.7: 0.88, 0.8: 0.84, 0.9: 0.80}
    return SCHEDULES[given.schedule](job), job


def test_minidisc_goes_through_the_assistant_with_the_largest_tradeoff():
    outcome, job = run()
    assert job.stages == [
        ("sandwich-1", ["teacher"], "teacher", [0.5, 0.6, 0.7, 0.8, 0.9]),
        ("student", ["sandwich-1: 70 % with the weights of 70 %"], "sandwich-1: 80 % with the weights of 90 %", [0.9]),
    ]
    assert [a.candidate.spec.sparsity for a in outcome.assistants] == [0.7]
    assert outcome.spec == spec(0.9)


def test_a_second_sandwich_starts_from_the_assistants_weights():
    _, job = run(second_stage="sandwich")
    assert job.stages[1] == (
        "student",
        ["sandwich-1: 70 % with the weights of 70 %"],
        "sandwich-1: 80 % with the weights of 70 %",
        [0.8, 0.9],
    )


@pytest.mark.parametrize(
    ("who", "teachers"),
    [
        ("assistant", ["sandwich-1: 70 % with the weights of 70 %"]),
        ("teacher", ["teacher"]),
        ("both", ["sandwich-1: 70 % with the weights of 70 %", "teacher"]),
    ],
)
def test_who_teaches_the_student(who, teachers):
    _, job = run(second_teacher=who)
    assert job.stages[1][1] == teachers


@pytest.mark.parametrize(
    ("settings", "assistant"),
    [
        ({}, "sandwich-1: 70 % with the weights of 70 %"),
        ({"schedule": "chain", "assistants": (0.6,)}, "assistant-60: 60 % with the weights of 60 %"),
    ],
)
def test_the_student_can_be_cut_by_the_assistants_own_importance(settings, assistant):
    outcome, job = run(second_importance="assistant", **settings)
    assert job.stages[-1][2] == f"{assistant}, reordered"
    assert outcome.spec == REORDERED
    (name,) = [name for name in outcome.costs if name.startswith("importance of")]
    assert outcome.costs[name].flops == 7.0


NO_GAP = {0.5: 0.85, 0.6: 0.85, 0.7: 0.85, 0.8: 0.85, 0.9: 0.85}


def test_without_a_gap_the_run_can_stop_after_the_sandwich():
    outcome, job = run(NO_GAP, no_gap="stop")
    assert [stage[0] for stage in job.stages] == ["sandwich-1"]
    assert not outcome.assistants
    assert outcome.spec == spec(0.9)


def test_without_a_gap_the_student_is_trained_on_by_the_teacher():
    outcome, job = run(NO_GAP)
    assert job.stages[1:] == [("student", ["teacher"], "sandwich-1: 90 % with the weights of 90 %", [0.9])]
    assert not outcome.assistants


def test_with_a_gap_it_can_be_trained_on_all_the_same():
    with_assistant, _ = run()
    assert with_assistant.assistants
    outcome, job = run(no_gap="assume")
    assert job.stages[1:] == [("student", ["teacher"], "sandwich-1: 90 % with the weights of 90 %", [0.9])]
    assert not outcome.assistants


def test_two_assistants_are_chosen_one_after_the_other():
    # After 70 %, 80 % has the larger tradeoff of the two that are left.
    outcome, job = run({0.5: 0.90, 0.6: 0.89, 0.7: 0.88, 0.8: 0.85, 0.9: 0.80}, stages=3)
    assert [stage[0] for stage in job.stages] == ["sandwich-1", "sandwich-2", "student"]
    assert job.stages[1][2:] == ("sandwich-1: 80 % with the weights of 70 %", [0.8, 0.9])
    assert job.stages[2][1] == ["sandwich-2: 80 % with the weights of 80 %"]
    assert job.stages[2][2] == "sandwich-2: 90 % with the weights of 90 %"
    assert [a.candidate.spec.sparsity for a in outcome.assistants] == [0.7, 0.8]


def test_a_second_sandwich_of_the_student_alone_starts_from_its_own_weights():
    _, job = run({0.5: 0.80, 0.6: 0.80, 0.7: 0.80, 0.8: 0.85, 0.9: 0.80}, stages=3)
    assert job.stages[1][2:] == ("sandwich-1: 90 % with the weights of 90 %", [0.9])


@pytest.mark.parametrize("importance", ["teacher", "assistant"])
@pytest.mark.parametrize("no_gap", ["train", "stop"])
def test_without_a_gap_behind_the_first_assistant(no_gap, importance):
    # After 70 %, 90 % has the larger tradeoff of the two that are left.
    scores = {0.5: 0.90, 0.6: 0.89, 0.7: 0.88, 0.8: 0.80, 0.9: 0.82, "student": {0.9: 0.85}}
    outcome, job = run(scores, stages=3, no_gap=no_gap, second_importance=importance)
    first = ["sandwich-1: 70 % with the weights of 70 %"]
    second = ("sandwich-2", first, "sandwich-1: 80 % with the weights of 70 %", [0.8, 0.9])
    last = ("student", first, "sandwich-2: 90 % with the weights of 90 %", [0.9])
    assert job.stages[1:] == ([second, last] if no_gap == "train" else [second])
    assert [a.candidate.spec.sparsity for a in outcome.assistants] == [0.7]
    assert (outcome.spec, outcome.selection_metrics["metric"]) == (spec(0.9), 0.85 if no_gap == "train" else 0.82)


def test_two_stages_of_assistants_can_be_left_out_together():
    outcome, job = run(stages=3, no_gap="assume")
    assert job.stages[1:] == [("student", ["teacher"], "sandwich-1: 90 % with the weights of 90 %", [0.9])]
    assert not outcome.assistants


@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize(
    ("metrics", "no_gap", "stages"), [(None, "train", 3), (NO_GAP, "train", 2), (None, "assume", 2)]
)
def test_a_rate_that_falls_over_the_run_falls_on_where_stages_are_left_out(metrics, no_gap, stages, share):
    given = {"no_gap": no_gap, "sandwich_share": share, "learning_rate": 3e-4, "final_learning_rate": 1e-5}
    _, job = run(metrics, stages=3, decay_over="run", **given)
    starts, ends = zip(*job.rates, strict=True)
    assert len(job.rates) == stages
    assert (starts[0], ends[-1]) == pytest.approx((3e-4, 1e-5))
    assert starts[1:] == pytest.approx(ends[:-1])


@pytest.mark.parametrize(("stages", "named"), [(2, (0.5,)), (3, (0.5, 0.8))])
def test_assistants_that_are_named_are_taken_whatever_their_tradeoff(stages, named):
    outcome, job = run(stages=stages, assistants=named)
    assert [a.candidate.spec.sparsity for a in outcome.assistants] == list(named)
    size = f"{100 * named[-1]:g} %"
    assert job.stages[-1][1] == [f"sandwich-{len(named)}: {size} with the weights of {size}"]


def test_sizes_of_other_targets_are_trained_but_never_chosen():
    small = spec(0.95)
    # 95 % would have the largest tradeoff.
    outcome, job = run({**NO_GAP, 0.9: 0.80, 0.8: 0.86, 0.95: 0.86}, pool=[*GRID, small])
    assert job.stages[0][3] == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    assert job.stages[1][3] == [0.9]
    assert [a.candidate.spec.sparsity for a in outcome.assistants] == [0.8]


def test_direct_and_finetune_train_the_student_alone():
    for schedule in ("direct", "finetune"):
        _, job = run(schedule=schedule)
        assert job.stages == [("student", ["teacher"], "teacher", [0.9])]
        assert job.settings.loss == "hidden+logits"
        assert job.settings.effective_loss == {"direct": "hidden+logits", "finetune": "labels"}[schedule]


@pytest.mark.parametrize("who", ["assistant", "teacher", "both"])
def test_a_chain_passes_through_its_assistants(who):
    _, job = run(schedule="chain", assistants=(0.6, 0.8), second_teacher=who)
    made = "assistant-60: 60 % with the weights of 60 %", "assistant-60-80: 80 % with the weights of 80 %"
    assert [stage[2] for stage in job.stages] == ["teacher", *made]
    teachers = [{"assistant": [one], "teacher": ["teacher"], "both": [one, "teacher"]}[who] for one in made]
    assert [stage[1] for stage in job.stages] == [["teacher"], *teachers]
    assert [stage[3] for stage in job.stages] == [[0.6], [0.8], [0.9]]


def test_maxidisc_tries_every_candidate():
    outcome, job = run(schedule="maxidisc")
    assert [stage[3] for stage in job.stages] == [[0.5], [0.9], [0.6], [0.9], [0.7], [0.9], [0.8], [0.9]]
    assert len(outcome.trials) == 4
    assert outcome.costs.keys() == {stage[0] for stage in job.stages}


def test_maxidisc_takes_the_best_student():
    scores = {"student-via-50": 0.7, "student-via-60": 0.9, "student-via-70": 0.6, "student-via-80": 0.8}
    sizes = {0.5: 0.90, 0.6: 0.89, 0.7: 0.88, 0.8: 0.84}
    outcome, _ = run({**sizes, **{stage: {0.9: score} for stage, score in scores.items()}}, schedule="maxidisc")
    assert [trial["student_metrics"]["metric"] for trial in outcome.trials] == [0.7, 0.9, 0.6, 0.8]
    assert [a.candidate.spec.sparsity for a in outcome.assistants] == [0.6]
    assert outcome.selection_metrics == {"metric": 0.9}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stages": 1},
        {"schedule": "direct"},
        {"schedule": "maxidisc"},
        {"schedule": "chain", "assistants": (0.6, 0.8)},
    ],
)
def test_what_is_planned_is_what_is_trained(settings):
    _, job = run(**settings)
    assert [[c.sparsity for c in stage] for stage in planned(job)] == [stage[3] for stage in job.stages]


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({}, [0.6, 0.7, 0.8, 0.9]),
        ({"stages": 3}, [0.7, 0.8, 0.9]),
        ({"assistants": (0.7,)}, [0.8, 0.9]),
        ({"no_gap": "assume"}, [0.9]),
    ],
)
def test_of_a_last_sandwich_the_longest_way_is_planned(changes, last):
    # The larger, the better: each time the largest candidate is the assistant.
    _, job = run({0.5: 0.9, 0.6: 0.7, 0.7: 0.5, 0.8: 0.3, 0.9: 0.1}, second_stage="sandwich", **changes)
    assert job.stages[-1][3] == last
    assert [c.sparsity for c in planned(job)[-1]] == last


@pytest.mark.parametrize(
    "changes", [{"loss": "logits"}, {"loss": "minilm"}, {"precision": "bf16"}, {"teacher_top_k": 3}, {"layers": 2}]
)
def test_outputs_of_another_kind_lie_in_another_place(tmp_path, changes):
    def place(layers=3, **settings):
        job = Job(**dict.fromkeys(f.name for f in fields(Job)))
        job.settings = CompressSettings(teacher="t", output_dir="o", **settings)
        job.folder, job.train_rows, job.architecture, job.note = tmp_path, [], architecture_for("bert"), print
        student = Network("student", BERT.model(num_hidden_layers=layers))
        return job._stores([Network("teacher", None)], student)["outputs of teacher"]._folder

    assert place() == place()
    assert place() != place(**changes)
