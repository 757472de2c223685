"""The model card of an exported folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from minidisc.card import TAGS, errors_of, hub_id, metadata, shown_name, write_markdown
from minidisc.config import ExportSettings
from minidisc.tasks import Task


def write_export_card(settings: ExportSettings, task: Task, record: dict[str, Any], folder: Path) -> None:
    """Write the card into the exported folder.

    Args:
        settings: of the export.
        task: that the model was checked on.
        record: what ``export.json`` holds.
        folder: the exported one.
    """
    engines = record["engines"]
    variables = {
        **record,
        "on_hub": hub_id(settings.model) is not None,
        "source": shown_name(settings.model),
        "task": asdict(task),
        "errors": {name: errors_of(engine["metrics"], record["rows"]["count"]) for name, engine in engines.items()},
        "max_length": record["rows"]["max_length"],
        "int8": settings.int8,
    }
    data = metadata(
        asdict(task),
        asdict(settings),
        # Of the file that the example runs.
        list(engines.values())[-1]["metrics"],
        record["rows"]["source"],
        library_name=settings.format,
        base_model=settings.model,
        base_model_relation="quantized",
        tags=[*TAGS, settings.format],
        model_name="exported",
    )
    write_markdown("exporting/card.md.jinja", variables, data, folder)
