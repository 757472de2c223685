"""What fine-tuning leaves."""

import torch
from transformers import AutoModelForSequenceClassification

from minidisc import finetuning
from minidisc.config import FinetuneSettings
from tests.integration import tiny


def test_the_weights_are_the_best_evaluations(workplace, tmp_path, monkeypatch):
    seen = []

    def score(trainer):
        seen.append({name: weight.clone() for name, weight in trainer.model.state_dict().items()})
        metric = 0.9 if len(seen) == 2 else 0.5
        return [{"accuracy": metric, "metric": metric}]

    monkeypatch.setattr(finetuning._FinetuneTrainer, "score", score)
    names = ("train_file", "validation_file", "output_dir", "max_length", "device", "batch_size")
    values = {name: tiny.settings(workplace, tmp_path / "teacher")[name] for name in names}
    settings = FinetuneSettings(
        model=str(workplace / "backbone"), max_steps=6, evaluations_per_epoch=99, patience=99, **values
    )
    result = finetuning.finetune(settings)
    assert len(seen) > 3
    assert result.metrics["accuracy"] == 0.9
    found = AutoModelForSequenceClassification.from_pretrained(result.output_dir).state_dict()
    differs = [name for name, weight in found.items() if not torch.equal(weight, seen[1][name])]
    assert not differs
    assert any(not torch.equal(weight, seen[-1][name]) for name, weight in found.items())
