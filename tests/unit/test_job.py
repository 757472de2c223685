"""What a real job hands on: to the trainer of a stage, and from one stage to the next. Its networks are tiny."""

from itertools import cycle
from operator import attrgetter
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings
from minidisc.extraction import extract
from minidisc.importance import Importance
from minidisc.measure import Shape
from minidisc.results import Cost
from minidisc.schedules import Job, Network
from minidisc.subnetworks import SubnetworkSpec
from minidisc.trainer import SandwichTrainer
from tests.unit.families import BERT, tiny_tokenizer, training_rows
from tests.unit.trainers import LARGE, MIDDLE, SMALL, TASK

SETTINGS = {"teacher": "t", "device": "cpu", "batch_size": 4, "keep_sizes": False}


def job_for(folder, task=TASK, shared=False, stored=False, importance=None, cut=None, **settings):
    """A job whose target is the smallest of three candidates, but which trains the one in the middle at every step."""
    architecture, teacher = architecture_for("bert"), BERT.model()
    return Job(
        settings=CompressSettings(output_dir=str(folder), **{**SETTINGS, **settings}),
        folder=folder,
        architecture=architecture,
        teacher=Network("teacher", teacher),
        tokenizer=tiny_tokenizer(),
        task=task,
        outputs=[0, 1],
        train_rows=training_rows(BERT, (9,) * 8),
        selection_rows=training_rows(BERT, [5, 9, 3, 12], seed=3),
        shape=Shape.of(teacher, architecture),
        candidates=[LARGE, MIDDLE, SMALL],
        pool=[LARGE, MIDDLE, SMALL],
        always=[MIDDLE],
        spec=lambda sparsity: None,
        cut=cut,
        base="base",
        importance=importance,
        progress=lambda stage: None,
        note=lambda line: None,
        need_teacher=lambda: None,
        drop_teacher=lambda: None,
        shared=shared,
        stored=stored,
    )


@pytest.fixture
def trainer_of(monkeypatch):
    """Gives the trainer of a job's stage as it is before it trains."""

    def stop(trainer):
        raise StopIteration(trainer)

    def made(job, teacher=None, candidates=(LARGE, MIDDLE, SMALL), source=None):
        with pytest.raises(StopIteration) as stopped:
            job.train("student", [teacher or job.teacher], source or job.teacher, list(candidates))
        return stopped.value.value

    monkeypatch.setattr(SandwichTrainer, "fit", stop)
    return made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dropout", 0.3),
        ("train_embeddings", False),
        ("loss", "minilm"),
        ("teacher_top_k", 3),
        ("tradeoff_lambda", 0.7),
        ("candidates_per_step", "smallest+1"),
    ],
)
def test_a_stage_is_trained_as_the_settings_say(tmp_path, trainer_of, name, value):
    assert getattr(trainer_of(job_for(tmp_path, **{name: value})).args, name) == value


@pytest.mark.parametrize(
    ("rule", "candidates", "trained"),
    [
        ("smallest+0", [LARGE, MIDDLE, SMALL], [SMALL, MIDDLE]),
        ("largest+smallest+0", [LARGE, MIDDLE, SMALL], [SMALL, MIDDLE, LARGE]),
        # Of two, both are.
        ("smallest+0", [LARGE, SMALL], [SMALL, LARGE]),
    ],
)
def test_the_targets_sizes_are_trained_at_every_step(tmp_path, trainer_of, rule, candidates, trained):
    trainer = trainer_of(job_for(tmp_path, candidates_per_step=rule), candidates=candidates)
    assert trainer.step_candidates(0) == trained


def test_assistants_that_were_best_at_the_same_step_share_no_stage_and_no_outputs(tmp_path, trainer_of):
    job = job_for(tmp_path, shared=True, stored=True)
    source = Network("stage step 5", BERT.model())

    def folders(spec):
        trainer = trainer_of(job, Network("stage step 3", extract(BERT.model(), spec), spec.name), [SMALL], source)
        (store,) = trainer._stores
        return trainer.args.output_dir, store._folder

    one, other = folders(LARGE), folders(MIDDLE)
    assert one[0] != other[0]
    assert one[1] != other[1]
    assert folders(LARGE) == one


def scored(scores):
    """A task that gives so many metrics, again and again."""
    scores = cycle(scores)

    def score(_, labels):
        return {"metric": next(scores)}

    return SimpleNamespace(evaluate=score, digest=lambda logits, labels: logits, score=score)


def test_a_wider_network_has_the_weights_that_were_best_for_the_one_that_is_asked_for(tmp_path):
    # Before training, and after each of two steps.
    job = job_for(tmp_path, scored([0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9]), max_steps=2, batch_size=8)
    stage = job.train("sandwich-1", [job.teacher], job.teacher, job.candidates)
    assert [best.step for best in stage.trainer.best] == [0, 1, 2]
    best, neighbours = (load_file(next(tmp_path.rglob(f"snapshot-{step}*"))) for step in (2, 1))
    name, kept = "bert.encoder.layer.0.intermediate.dense.weight", MIDDLE.neurons[0]
    assert not torch.equal(best[name][:kept], neighbours[name][:kept])
    found = stage.network(SMALL, MIDDLE)
    assert torch.equal(found.model.state_dict()[name], best[name][:kept])
    assert found.width == MIDDLE.name
    assert found.weights != stage.network(MIDDLE).weights


def test_chances_of_being_chosen_are_of_the_tradeoffs_of_the_settings(tmp_path):
    # 0.09 of the metric for 0.2 of sparsity, then 0.15.
    job = job_for(tmp_path, scored([0.9, 0.81, 0.66]), tradeoff_lambda=0.5, max_steps=1)
    stage = job.train("sandwich-1", [job.teacher], job.teacher, job.candidates)
    rows = stage.candidates(job, job.candidates)
    assert [row.confidence.probability for row in rows] == [0, 1, 0]
    assert [row.tradeoff for row in rows] == pytest.approx([1.15, 1.16, 1.11])


def test_an_assistants_own_importance_orders_it_and_says_what_the_student_keeps(tmp_path):
    # Of all heads one counts, and of all neurons two.
    heads, neurons = torch.zeros(3, 4), torch.zeros(3, 48)
    heads[1, 1] = neurons[2, 3] = neurons[2, 6] = 1.0
    importance = Importance(heads, neurons)
    model = extract(BERT.model(), MIDDLE)
    job = job_for(
        tmp_path,
        importance=lambda *_: (importance, Cost(flops=7.0)),
        cut=lambda own, sparsity: SubnetworkSpec(
            sparsity, tuple(own.heads.gt(0).sum(1).tolist()), tuple(own.neurons.gt(0).sum(1).tolist())
        ),
    )
    source, target, cost = job.reordered(Network("stage step 3", model, MIDDLE.name), MIDDLE)
    assert target == SubnetworkSpec(SMALL.sparsity, (0, 1, 0), (0, 0, 2))
    assert cost.flops == 7.0
    student, layers = extract(source.model, target), BERT.layers_of(model)
    query, up = (attrgetter(path) for path in ("attention.self.query.weight", "intermediate.dense.weight"))
    assert torch.equal(query(BERT.layers_of(student)[1]), query(layers[1])[8:16])
    assert torch.equal(up(BERT.layers_of(student)[2]), up(layers[2])[[3, 6]])


@pytest.mark.parametrize("left", [0, 0.5])
def test_a_size_that_was_cut_short_is_written_again(tmp_path, left):
    job = job_for(tmp_path, scored([0.9]), max_steps=1, keep_sizes=True)
    job.train("sandwich-1", [job.teacher], job.teacher, job.candidates)
    (file,) = (tmp_path / "sizes").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(left * len(whole))])
    job.train("sandwich-1", [job.teacher], job.teacher, job.candidates)
    assert file.read_bytes() == whole
