"""Metrics of a saved model."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidisc.config import EvaluateSettings
from minidisc.devices import resolve_device
from minidisc.prediction import predict
from minidisc.tasks import Kind, align_labels, collator, encode, load_data
from minidisc.teachers import load_classifier


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Score a model on the validation rows.

    Returns:
        ``metrics`` (each of the task's, and ``metric``, their mean), ``rows`` (how many), ``source`` (which file or
        split), ``parameters`` (of the model).

    Raises:
        UserError: if the model or the rows cannot be used.
    """
    device = resolve_device(settings.device)
    loaded = load_classifier(settings.model, settings.trust_remote_code)
    model, config = loaded.model, loaded.model.config
    kind: Kind | None = "regression" if config.num_labels == 1 else None
    data = load_data(settings, kind=kind, need_train=False)
    outputs = align_labels(data.task, config.id2label, config.num_labels) or [0]
    rows = encode(data.validation, loaded.tokenizer, settings.max_length)
    logits = predict(model.to(device), rows, collator(loaded.tokenizer), settings.batch_size)
    return {
        "metrics": data.task.evaluate(logits[:, outputs], np.asarray(rows["label"])),
        "rows": len(rows),
        "source": data.splits["validation"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }
