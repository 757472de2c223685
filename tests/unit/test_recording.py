"""Recorded steps, on a CPU: a record there runs the passes again, on the tensors that it was made with."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minidisc import recording
from minidisc.layers import layers_of
from minidisc.recording import StepRecorder
from minidisc.resumable import ResumableTrainer
from tests.unit.families import BERT, LLAMA
from tests.unit.trainers import trainer_for

LENGTHS = (9,) * 8 + (5,) * 8 + (9,) * 4


def rerun(passes, pool):
    """A record that does nothing when it is made, and then what was done, with gradients where they were."""
    return passes


def trained(folder, record=None, **changes):
    """The weights after two epochs, and the recorder."""
    trainer = trainer_for(folder, rows=LENGTHS, epochs=2, **changes)
    if record:
        trainer._recorder = StepRecorder(trainer.model.parameters(), record, object)
    recorder = trainer._recorder
    trainer.fit()
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}, recorder


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_accumulation_steps": 2},
        {"candidates_per_step": "smallest+1", "dropout": 0.1},
        {"loss": "pkd", "train_embeddings": False, "outputs": [1, 0]},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_replayed_steps_train_the_same_weights(tmp_path, changes):
    as_they_are, _ = trained(tmp_path / "a", **changes)
    replayed, recorder = trained(tmp_path / "b", rerun, **changes)
    assert recorder.recorded
    for name, weight in as_they_are.items():
        assert torch.equal(replayed[name], weight), name


def test_a_step_that_cannot_be_recorded_runs_as_it_is(tmp_path):
    said = []

    def stop(*_):
        raise RuntimeError("not while recording\nmore")

    def record(passes, pool):
        # In the middle of a pass that is not the step's last one.
        layer = layers_of(trainer.model, trainer._family)[1]
        with layer.register_forward_pre_hook(stop):
            passes()

    as_they_are, _ = trained(tmp_path / "a")
    trainer = trainer_for(tmp_path / "b", rows=LENGTHS, epochs=2)
    trainer._recorder = StepRecorder(trainer.model.parameters(), record, object, said.append)
    trainer.fit()
    assert said == ["not while recording"]
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(as_they_are[name], weight), name


def test_gradients_stay_where_they_are_and_others_stay_none():
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    recorder = StepRecorder(weights, rerun, object)
    places = set()
    for step in range(4):
        weights[0].grad = None
        factor = torch.full((2,), float(step))
        recorder.run("first alone", [factor], lambda batch: ((weights[0] * batch[0]).sum().backward(), batch[0])[1])
        assert weights[0].grad.tolist() == [step, step]
        assert weights[1].grad is None
        places.add(weights[0].grad.data_ptr())
    assert len(places) == 1
    assert recorder.recorded == 1


def test_what_was_added_before_a_replay_is_kept():
    weight = torch.nn.Parameter(torch.ones(2))
    recorder = StepRecorder([weight], rerun, object)
    for _ in range(3):
        weight.grad = torch.full((2,), 5.0)
        recorder.run("a", [torch.ones(2)], lambda batch: ((weight * batch[0]).sum().backward(), batch[0])[1])
        assert weight.grad.tolist() == [6.0, 6.0]


def test_no_more_than_so_many_kinds_are_recorded(monkeypatch):
    monkeypatch.setattr(recording, "MOST", 2)
    weight = torch.nn.Parameter(torch.ones(2))
    recorder = StepRecorder([weight], rerun, object)
    for _ in range(2):
        for kind in range(5):
            recorder.run(kind, [torch.ones(2)], lambda batch: ((weight * batch[0]).sum().backward(), batch[0])[1])
    assert recorder.recorded == 2


class NoWaiting(TorchDispatchMode):
    """Fails at what a GPU has to be waited for, which no record can hold."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"), name
        if name.startswith("index"):
            assert not any(i.dtype == torch.bool for i in args[1] if isinstance(i, torch.Tensor)), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        *(
            (BERT, {"loss": loss, "outputs": [1, 0]})
            for loss in ("hidden+logits", "logits", "pkd", "minilm", "labels")
        ),
        (LLAMA, {"writes": True}),
        (LLAMA, {"writes": True, "top_k": 3}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value.name,
)
def test_a_step_waits_for_nothing(tmp_path, monkeypatch, row, changes):
    changes = dict(changes)
    top_k = changes.pop("top_k", None)
    trainer = trainer_for(tmp_path, row, **changes)
    trainer.args.teacher_top_k = top_k
    trainer.current_gradient_accumulation_steps = 1
    # What transformers asks before it looks at values.
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)

    def watched(what, batch, passes):
        with NoWaiting():
            return passes(batch)

    monkeypatch.setattr(trainer, "run_passes", watched)
    assert trainer.train_batch(trainer.model, next(iter(trainer.get_train_dataloader()))) > 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"device": "cpu"}, False),
        ({"recorded": False}, False),
        ({"checkpointed": True}, False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_which_steps_are_recorded(changes, expected):
    known = {"device": "cuda", "recorded": True, "checkpointed": False} | changes
    arguments = SimpleNamespace(**known | {"device": torch.device(known["device"])})
    family = SimpleNamespace(pools_end_token=False)
    trainer = SimpleNamespace(args=arguments, is_sharded=False, _family=family)
    assert ResumableTrainer._records(trainer) == expected
