"""Metrics of a saved model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minidisc.config import MAX_LENGTH, EvaluateSettings, ExportSettings
from minidisc.devices import resolve_device
from minidisc.errors import UserError
from minidisc.extraction import noted_length
from minidisc.prediction import predict
from minidisc.refusals import scale_warning
from minidisc.tasks import (
    CAUSAL_LM,
    Cut,
    Task,
    collator,
    encode_for,
    label_array,
    load_data,
    model_outputs,
    unnamed_warning,
)
from minidisc.teachers import Loaded, check_kind, check_length, check_tokens, kind_of, load_config, load_model
from minidisc.values import check_class


@dataclass
class Evaluation:
    """A saved model and the validation rows it is scored on.

    ``rows`` are encoded; ``source`` is the file or split they are from; ``outputs`` are the model's outputs that the
    task's labels stand for, in their order; None for all. ``length`` is the ``--max-length`` that they were encoded
    with, and ``length_from`` who says so: ``given`` (the user), ``model`` (its training) or ``default``.
    """

    loaded: Loaded
    task: Task
    rows: Any
    source: str
    outputs: Sequence[int] | None
    length: int
    length_from: str

    @classmethod
    def load(cls, settings: EvaluateSettings | ExportSettings) -> Evaluation:
        """Load what the settings name; the model is on the CPU.

        Raises:
            UserError: if the model or the rows cannot be used.
        """
        config = load_config(settings.model, settings.trust_remote_code)
        data = load_data(settings, kind=kind_of(config), model_names=config.id2label.values(), need_train=False)
        check_kind(config, data.task.kind)
        outputs = model_outputs(data.task, config)
        if unnamed := unnamed_warning(data.task, config.id2label):
            logging.getLogger("minidisc").warning(unnamed)
        loaded = load_model(settings.model, settings.trust_remote_code, kind=data.task.kind)
        length, length_from = settings.max_length, "given"
        if length is None:
            length, length_from = noted_length(config), "model"
        if length is None:
            length, length_from = MAX_LENGTH, "default"
        check_length(config, min(length, loaded.tokenizer.model_max_length))
        _check_trained(settings.model, loaded)
        cut = Cut()
        rows = encode_for(data.task, data.validation, loaded.tokenizer, length, cut)
        if line := cut.told(data.splits["validation"]):
            logging.getLogger("minidisc").warning(line)
        check_tokens(loaded, rows, data.splits["validation"])
        return cls(loaded, data.task, rows, data.splits["validation"], outputs, length, length_from)

    def logits(self, model: Any, batch_size: int) -> Any:
        """What `minidisc.prediction.predict` gives for ``model``, which may be another form of the loaded one."""
        return predict(model, self.rows, collator(self.loaded.tokenizer), batch_size, self.outputs)

    def metrics(self, logits: Any) -> dict[str, float]:
        """The task's metrics, and under ``metric`` their mean."""
        return self.task.evaluate(logits, label_array(self.rows))


def _check_trained(source: str, loaded: Loaded) -> None:
    """Refuse a model whose classifier is drawn by chance, since its folder holds none."""
    if loaded.fresh:
        raise UserError(
            f"{source} has no trained weights for {', '.join(loaded.fresh)}: it was not fine-tuned; run "
            "'minidisc finetune' first."
        )


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Score a model on the validation rows.

    Returns:
        ``metrics`` (each of the task's, and ``metric``, their mean), ``rows`` (how many), ``tokens_per_row`` (of a
        language model, whose figures depend on it; else None), ``source`` (which file or split), ``max_length`` (with
        which they were encoded), ``max_length_from`` (``given``, ``model``, where that says how it was trained, or
        ``default``), ``parameters`` (of the model).

    Raises:
        UserError: if the settings, the model or the rows cannot be used.
    """
    check_class(EvaluateSettings, settings)
    device = resolve_device(settings.device)
    evaluation = Evaluation.load(settings)
    model = evaluation.loaded.model.to(device)
    logits = evaluation.logits(model, settings.batch_size)
    if line := scale_warning(evaluation.task, logits, label_array(evaluation.rows), "the model"):
        logging.getLogger("minidisc").warning(line)
    return {
        "metrics": evaluation.metrics(logits),
        "rows": len(evaluation.rows),
        # Packed, all rows have as many.
        "tokens_per_row": evaluation.rows["length"][0] if evaluation.task.kind == CAUSAL_LM else None,
        "source": evaluation.source,
        "max_length": evaluation.length,
        "max_length_from": evaluation.length_from,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
