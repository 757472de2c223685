"""Experiment trackers, read back from what they wrote to disk."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import minidisc
from minidisc import tracking
from minidisc.errors import UserError
from tests.integration import tiny


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


def test_trackers_that_cannot_be_used_are_refused_at_once(workplace, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--report-to names 'tensorbord'; allowed are .*tensorboard"):
        minidisc.compress(**tiny.settings(workplace, tmp_path / "run", report_to="tensorbord"))
    monkeypatch.setattr(tracking, "get_available_reporting_integrations", lambda: [])
    with pytest.raises(UserError, match="--report-to wandb needs a package that is not installed"):
        minidisc.compress(**tiny.settings(workplace, tmp_path / "run", report_to="wandb"))
    assert not (tmp_path / "run").exists()
