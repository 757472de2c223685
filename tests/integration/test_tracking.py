"""Experiment trackers, read back from what they wrote to disk."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback

import minidisc
from minidisc import tracking
from minidisc.errors import UserError
from tests.integration import tiny
from tests.unit.trainers import trainer_for


class Wandb(ModuleType):
    """Of wandb what transformers' callback calls; a run keeps what it is told."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.run, self.runs, self.config = None, [], {}

    def init(self, project, name):
        self.run = SimpleNamespace(name=name, told=[], summary={}, _label=lambda code: None)
        self.runs.append(self.run)

    def log(self, values):
        self.run.told.append(values)

    def finish(self):
        self.run = None


def test_tensorboard_is_told_every_candidates_metric_and_tradeoff(workplace, tmp_path):
    minidisc.compress(**tiny.settings(workplace, tmp_path / "run", epochs=2, report_to="tensorboard"))

    stages = sorted(path.name for path in (tmp_path / "run" / "tensorboard").iterdir())
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert stages == sorted(results["history"])
    for stage, evaluations in results["history"].items():
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / stage))
        events.Reload()
        for name in evaluations[0]["metrics"]:
            sparsity = float(name.removesuffix("%")) / 100
            told = {event.step: event.value for event in events.Scalars(f"eval/accuracy/{name}")}
            assert told == pytest.approx({row["step"]: row["metrics"][name]["accuracy"] for row in evaluations})
            tradeoffs = {event.step: event.value for event in events.Scalars(f"eval/t_lambda/{name}")}
            assert tradeoffs == pytest.approx({step: value + 0.2 * sparsity for step, value in told.items()})
        assert [event.step for event in events.Scalars("train/loss")] == [row["step"] for row in evaluations[1:]]


@pytest.mark.parametrize("own", [False, True])
def test_every_stage_has_a_run_of_its_own_unless_there_is_one(workplace, tmp_path, monkeypatch, own):
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    errors = SimpleNamespace(ConfigError=RuntimeError)
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.config_util", errors)
    if own:
        wandb.init("p", "mine")
    minidisc.compress(**tiny.settings(workplace, tmp_path / "run", epochs=2, report_to="wandb"))

    stages = json.loads((tmp_path / "run" / "results.json").read_text())["history"]
    told = {
        run.name: [row["train/global_step"] for row in run.told if any(key.startswith("eval/") for key in row)]
        for run in wandb.runs
    }
    steps = {f"run {stage}": [row["step"] for row in evaluations] for stage, evaluations in stages.items()}
    assert told == ({"mine": [step for own in steps.values() for step in own]} if own else steps)
    assert (wandb.run is None) is not own


def test_a_tracker_is_set_up_once_by_rank_0_for_what_is_trained(tmp_path, monkeypatch):
    class Tracker(TrainerCallback):
        def on_init_end(self, args, state, control, **_):
            began.append(state.global_step)

    began = []
    monkeypatch.setitem(tracking.INTEGRATION_TO_CALLBACK, "azure_ml", Tracker)
    for rank, expected in ((1, []), (0, [0]), (0, [0])):
        trainer = trainer_for(tmp_path, max_steps=1)
        monkeypatch.setattr(tracking.ranks, "rank", lambda rank=rank: rank)
        with tracking.tracked(trainer, ["azure_ml"], tmp_path, trainer.finished):
            if rank == 0:
                trainer.fit()
        assert began == expected


def test_trackers_that_cannot_be_used_are_refused_at_once(workplace, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--report-to names 'tensorbord'; allowed are .*tensorboard"):
        minidisc.compress(**tiny.settings(workplace, tmp_path / "run", report_to="tensorbord"))
    monkeypatch.setattr(tracking, "get_available_reporting_integrations", lambda: [])
    with pytest.raises(UserError, match="--report-to wandb needs a package that is not installed"):
        minidisc.compress(**tiny.settings(workplace, tmp_path / "run", report_to="wandb"))
    assert not (tmp_path / "run").exists()
