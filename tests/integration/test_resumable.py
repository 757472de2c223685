import errno
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minidisc import checkpoints, resumable
from minidisc.arguments import trainer_arguments
from minidisc.config import TrainingSettings
from minidisc.errors import UserError
from minidisc.files import read_json, write_json
from minidisc.subnetworks import SubnetworkSpec
from minidisc.trainer import SandwichArguments, SandwichTrainer
from tests.unit.families import BERT, randomise, tiny_tokenizer, training_rows

CANDIDATES = [
    SubnetworkSpec(s, (h,) * 2, (n,) * 2) for s, h, n in [(0.5, 2, 24), (0.6, 2, 20), (0.7, 1, 10), (0.9, 1, 2)]
]


class Scores:
    """The best evaluation of the i-th network is that of step 2 i; the logits' last digits move all metrics."""

    def __init__(self):
        self.trainer = None
        self.calls = 0

    def evaluate(self, logits, labels):
        network = self.calls % len(CANDIDATES)
        self.calls += 1
        best = self.trainer.state.global_step == 2 * network
        return {"metric": best + 0.1 * float(1000 * np.abs(logits.astype(np.float64)).sum() % 1)}


class Killed(BaseException):
    """What no ``except Exception`` of a library stops."""


def trainer_for(folder, progress=None, task=None, **changes):
    """A fresh trainer: twelve rows, three updates an epoch, dropout, and a random candidate in every step."""
    values = {
        "device": "cpu",
        "learning_rate": 1e-2,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "epochs": 2,
        "evaluations_per_epoch": 2,
        "patience": 99,
    }
    student, teacher = (BERT.model(seed=seed, num_hidden_layers=2) for seed in (1, 2))
    task = task or Scores()
    task.trainer = SandwichTrainer(
        student,
        SandwichArguments(
            **trainer_arguments(TrainingSettings(**{**values, **changes}), folder),
            candidates_per_step="largest+smallest+1",
            dropout=0.1,
        ),
        teacher=teacher,
        candidates=CANDIDATES,
        task=task,
        outputs=[0, 1],
        train_rows=training_rows(BERT, [3, 12, 5, 9, 4, 4, 13, 8, 6, 10, 7, 11]),
        selection_rows=training_rows(BERT, [5, 9, 3, 12, 7, 7, 8, 4, 6, 11], seed=3),
        tokenizer=tiny_tokenizer(),
        progress=progress,
    )
    return task.trainer


def outcome(trainer):
    """Everything that a training ends with, but for the time it took."""
    return {
        "weights": trainer.model.state_dict(),
        "best": trainer.best,
        "best weights": [trainer.best_state(i) for i in range(len(trainer.best))],
        "history": trainer.history,
        "steps": (trainer.cost.steps, trainer.cost.flops, trainer.state.global_step),
    }


def assert_same(one, other):
    for key in ("best", "history", "steps"):
        assert one[key] == other[key], key
    for a, b in zip([one["weights"], *one["best weights"]], [other["weights"], *other["best weights"]], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a training that nothing disturbed, and its outcome."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = trainer_for(folder)
    trainer.fit()
    assert trainer.state.global_step == 6
    assert [entry["step"] for entry in trainer.history] == [0, 2, 4, 6]
    assert [best.step for best in trainer.best] == [0, 2, 4, 6]
    return folder, outcome(trainer)


@pytest.fixture
def whole(undisturbed):
    return undisturbed[1]


def killed_at(wanted):
    def progress(step, total, loss, metrics):
        if (step, metrics is not None) == wanted:
            raise Killed

    return progress


def resume(folder, **changes):
    trainer = trainer_for(folder, **changes)
    if list(folder.glob("checkpoint-*")):
        randomise(trainer.model, seed=99)  # its weights must come from the checkpoint
    torch.manual_seed(1234)
    np.random.seed(1234)
    trainer.fit()
    return trainer


@pytest.mark.parametrize("point", [(0, True), (2, True), (3, False), (6, True)])
def test_killed_and_taken_up(tmp_path, whole, point):
    with pytest.raises(Killed):
        trainer_for(tmp_path, killed_at(point)).fit()
    assert_same(outcome(resume(tmp_path)), whole)


def test_killed_again_and_again(tmp_path, whole):
    for step in range(1, 7):
        trainer = trainer_for(tmp_path, killed_at((step, False)))
        with pytest.raises(Killed):
            trainer.fit()
    assert_same(outcome(resume(tmp_path)), whole)


def test_killed_anywhere_in_a_save(tmp_path, whole, monkeypatch):
    """What is on disk before every single change of a file in the checkpoint of step 4 can be gone on from."""
    folder, images, changes = tmp_path / "run", {}, []
    trainer = trainer_for(folder)

    def before(owner, name):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            if trainer.state.global_step == 4 and before.watching:
                before.watching = False
                changes.append(name)
                image = tmp_path / f"image-{len(changes)}"
                shutil.copytree(folder, image)
                # Staging is emptied before it is used, so that what lies there makes no two images differ.
                files = [path.relative_to(image) for path in image.rglob("*") if path.is_file()]
                images[frozenset(file for file in files if file.parts[0] != ".staging")] = image
                before.watching = True
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    before.watching = True
    for owner, name in [
        (os, "replace"),
        (os, "link"),
        (os, "unlink"),
        (shutil, "rmtree"),
        (torch, "save"),
        (checkpoints, "save_file"),
        (checkpoints, "write_json"),
    ]:
        before(owner, name)
    trainer.fit()
    monkeypatch.undo()
    assert_same(outcome(trainer), whole)
    assert len(changes) > 10
    assert len(images) > 3
    for image in images.values():
        assert_same(outcome(resume(image)), whole)


def test_what_checkpoints_refer_to_is_on_the_disk_too_where_it_is_no_link(tmp_path, monkeypatch):
    synced = set()

    def refused(source, target):
        raise OSError(errno.EPERM, "no links here", target)

    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(os, "link", refused)
    trainer_for(tmp_path, epochs=1, evaluations_per_epoch=1).fit()
    files = {file.name: file.stat().st_ino for file in tmp_path.rglob("*.safetensors")}
    assert len(files) > 2
    assert not [name for name, inode in files.items() if inode not in synced]


def test_what_a_dying_save_left_is_ignored(tmp_path, whole):
    with pytest.raises(Killed):
        trainer_for(tmp_path, killed_at((3, False))).fit()
    half = tmp_path / ".staging" / "checkpoint-4"
    half.mkdir(parents=True)
    for name in ("model.safetensors", "minidisc.json", "trainer_state.json"):
        (half / name).write_bytes(b"half of it")
    (tmp_path / ".snapshot-4.safetensors.tmp").write_bytes(b"half of it")
    assert_same(outcome(resume(tmp_path)), whole)


@pytest.mark.parametrize(
    ("begun", "now", "words"),
    [
        ("FSDP", {}, "trained under FSDP so far, and cannot go on under none"),
        ("DeepSpeed on 2 processes", {}, "trained under DeepSpeed on 2 processes so far"),
        (None, {"is_fsdp_enabled": True}, "trained under no FSDP or DeepSpeed so far, and cannot go on under FSDP"),
    ],
)
def test_what_one_engine_has_begun_another_does_not_take_up(tmp_path, whole, begun, now, words):
    with pytest.raises(Killed):
        trainer_for(tmp_path, killed_at((3, False))).fit()
    (file,) = tmp_path.glob("checkpoint-*/minidisc.json")
    saved = read_json(file)
    assert saved["engine"] is None
    write_json(file, {**saved, "engine": begun})
    trainer = trainer_for(tmp_path)
    vars(trainer).update(now)
    with pytest.raises(UserError, match=words):
        trainer.fit()
    write_json(file, saved)
    assert_same(outcome(resume(tmp_path)), whole)


def test_what_a_power_cut_has_halved_is_named(tmp_path, undisturbed):
    begun = tmp_path / "begun"
    with pytest.raises(Killed):
        trainer_for(begun, killed_at((3, False))).fit()
    names = ("minidisc.json", "trainer_state.json", "model.safetensors", "optimizer.pt", "rng_state.pth")
    for name in (*names, "snapshot-4.safetensors"):
        folder = tmp_path / name
        shutil.copytree(begun if name in names else undisturbed[0], folder)
        (file,) = folder.rglob(name)
        # Else the snapshot of the same step would be halved too.
        whole = file.read_bytes()
        file.unlink()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError) as caught:
            resume(folder).best_state(2)
        assert str(caught.value).startswith(f"{file} is damaged; delete {folder} and go on with --resume"), name


def test_a_finished_training_is_not_trained_further(tmp_path, undisturbed):
    def progress(*values):
        raise AssertionError(f"there is nothing to do: {values}")

    folder, whole = undisturbed
    shutil.copytree(folder, tmp_path / "copy")
    assert_same(outcome(resume(tmp_path / "copy", progress=progress)), whole)


def test_what_is_asked_of_a_finished_training_is_in_its_snapshots(tmp_path, undisturbed):
    folder, whole = undisturbed
    last = tmp_path / "copy" / "checkpoint-6"
    shutil.copytree(folder, tmp_path / "copy")
    (last / "global_step6").mkdir()  # as DeepSpeed keeps its state
    resume(tmp_path / "copy").keep_snapshots_only()
    assert {path.name for path in last.iterdir()} == {"minidisc.json", "trainer_state.json"}
    again = resume(tmp_path / "copy")
    assert_same({**outcome(again), "weights": whole["weights"]}, whole)


class Falling:
    """A metric that only falls."""

    def __init__(self):
        self.value = 1.0

    def evaluate(self, logits, labels):
        self.value -= 0.01
        return {"metric": self.value}


@pytest.mark.parametrize("point", [(3, False), (4, True)])
def test_early_stopping_counts_across_a_kill(tmp_path, point):
    task = Falling()
    with pytest.raises(Killed):
        trainer_for(tmp_path, killed_at(point), task=task, patience=2).fit()
    resumed = resume(tmp_path, task=task, patience=2)
    assert resumed.state.global_step == 4
    assert [entry["step"] for entry in resumed.history] == [0, 2, 4]
    assert {best.step for best in resumed.best} == {0}
    again = resume(tmp_path, task=task, patience=2)
    assert again.state.global_step == 4
    assert again.history == resumed.history


def test_only_what_is_needed_stays_on_disk(undisturbed):
    folder, whole = undisturbed
    snapshots = {f"snapshot-{best.step}.safetensors" for best in whole["best"]}
    assert {path.name for path in folder.iterdir()} == {"checkpoint-6"} | snapshots


def test_a_best_evaluation_that_is_surpassed_leaves_the_disk(tmp_path):
    rising = Falling()
    rising.evaluate = lambda *_: {"metric": float(rising.trainer.state.global_step)}
    trainer = trainer_for(tmp_path, task=rising)
    trainer.fit()
    assert {best.step for best in trainer.best} == {6}
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-6", "snapshot-6.safetensors"}


def test_every_epoch_has_every_row_once_in_an_order_of_its_own(tmp_path):
    trainer = trainer_for(tmp_path, gradient_accumulation_steps=1, epochs=3)
    seen = []
    train = trainer.train_batch

    def train_batch(model, inputs):
        seen.append([tuple(row[row != 0].tolist()) for row in inputs["input_ids"]])
        return train(model, inputs)

    trainer.train_batch = train_batch
    trainer.fit()
    rows = sorted(map(tuple, training_rows(BERT, [3, 12, 5, 9, 4, 4, 13, 8, 6, 10, 7, 11])["input_ids"]))
    epochs = [seen[i : i + 6] for i in (0, 6, 12)]
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch) == rows
        assert all(abs(len(batch[0]) - len(batch[1])) <= 2 for batch in epoch)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_time_of_both_parts_is_counted(tmp_path, monkeypatch):
    """By a clock that says that a step takes ten seconds, and seven of the processor."""
    steps = []

    def killed(step, total, loss, metrics):
        if metrics is None:
            steps.append(step)
            killed_at((3, False))(step, total, loss, metrics)

    clock = {"perf_counter": lambda: 10.0 * len(steps), "process_time": lambda: 7.0 * len(steps)}
    monkeypatch.setattr(resumable, "time", SimpleNamespace(**clock))
    with pytest.raises(Killed):
        trainer_for(tmp_path, killed).fit()
    # What came after the checkpoint of the second step is trained again.
    trainer = resume(tmp_path, progress=lambda step, total, loss, metrics: metrics is None and steps.append(step))
    assert steps == [1, 2, 3, 3, 4, 5, 6]
    assert (trainer.cost.seconds, trainer.cost.cpu_seconds) == (60, 42)
