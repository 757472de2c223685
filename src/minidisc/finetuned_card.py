"""The model card of a model that `minidisc finetune` has made."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from minidisc.card import auto_class_of, errors_of, hub_id, metadata, pipeline_of, shown_name, usage_of, write_markdown
from minidisc.config import FinetuneSettings
from minidisc.runs import versions
from minidisc.tasks import TaskData


def write_finetuned_card(settings: FinetuneSettings, data: TaskData, metrics: dict[str, float], folder: Path) -> None:
    """Write the card into the model's folder.

    Args:
        settings: of the training.
        data: its rows.
        metrics: of the weights that were kept, on the validation rows.
        folder: the model's.
    """
    task, values = asdict(data.task), asdict(settings)
    rows: dict[str, Any] = {"train": data.train, "validation": data.validation}
    variables = {
        "base": shown_name(settings.model),
        "on_hub": hub_id(settings.model) is not None,
        "task": task,
        "rows": {name: {"source": data.splits[name], "count": len(found)} for name, found in rows.items()},
        "metrics": metrics,
        "errors": errors_of(metrics, len(rows["validation"])),
        "settings": values,
        "versions": versions(),
        # Of a form of T5 that transformers does not have.
        "code": any(folder.glob("*.py")),
        "auto_class": auto_class_of(data.task.kind),
        "pipeline": pipeline_of(data.task.kind),
        "usage": usage_of(data.task.kind),
    }
    split = data.splits["validation"]
    card = metadata(
        task, values, metrics, split, base_model=settings.model, tags=["minidisc"], model_name="fine-tuned"
    )
    write_markdown("finetuned_card.md.jinja", variables, card, folder)
