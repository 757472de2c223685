"""Metrics of a saved model."""

from __future__ import annotations

from typing import Any

from minidisc.config import EvaluateSettings
from minidisc.devices import resolve_device
from minidisc.prediction import predict
from minidisc.tasks import align_labels, collator, encode, label_array, load_data
from minidisc.teachers import check_kind, kind_of, load_classifier, load_config


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Score a model on the validation rows.

    Returns:
        ``metrics`` (each of the task's, and ``metric``, their mean), ``rows`` (how many), ``source`` (which file or
        split), ``parameters`` (of the model).

    Raises:
        UserError: if the model or the rows cannot be used.
    """
    device = resolve_device(settings.device)
    config = load_config(settings.model, settings.trust_remote_code)
    data = load_data(settings, kind=kind_of(config), model_names=config.id2label.values(), need_train=False)
    check_kind(config, data.task.kind)
    outputs = align_labels(data.task, config.id2label, config.num_labels) or [0]
    loaded = load_classifier(settings.model, settings.trust_remote_code, kind=data.task.kind)
    rows = encode(data.validation, loaded.tokenizer, settings.max_length)
    model = loaded.model.to(device)
    logits = predict(model, rows, collator(loaded.tokenizer), settings.batch_size, outputs)
    return {
        "metrics": data.task.evaluate(logits, label_array(rows)),
        "rows": len(rows),
        "source": data.splits["validation"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }
