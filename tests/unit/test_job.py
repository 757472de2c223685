"""What a real job hands on: to the trainer of a stage, and from one stage to the next. Its networks are tiny."""

import pytest

from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings
from minidisc.measure import Shape
from minidisc.schedules import Job, Network
from minidisc.trainer import SandwichTrainer
from tests.unit.families import BERT, tiny_tokenizer, training_rows
from tests.unit.trainers import LARGE, MIDDLE, SMALL, TASK

SETTINGS = {"teacher": "t", "device": "cpu", "batch_size": 4, "keep_sizes": False}


def job_for(folder, task=TASK, shared=False, stored=False, importance=None, cut=None, **settings):
    """A job whose target is the smallest of three candidates, but which trains the one in the middle at every step."""
    architecture, teacher = architecture_for("bert"), BERT.model()
    return Job(
        settings=CompressSettings(output_dir=str(folder), **SETTINGS, **settings),
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
