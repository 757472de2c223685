"""The nine GLUE tasks as data: columns and label names of the Hugging Face ``glue`` dataset."""

from __future__ import annotations

from minidisc.tasks.task import Task

HUB_ID = "nyu-mll/glue"


def _task(name: str, text_columns: tuple[str, ...], label_names: tuple[str, ...] | None, *metrics: str) -> Task:
    return Task(
        name=f"glue/{name}",
        kind="classification" if label_names else "regression",
        text_columns=text_columns,
        label_column="label",
        label_names=label_names,
        named=label_names is not None,
        metrics=metrics,
    )


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")

GLUE: dict[str, Task] = {
    task.name: task
    for task in (
        _task("cola", ("sentence",), ("unacceptable", "acceptable"), "matthews"),
        _task("sst2", ("sentence",), ("negative", "positive"), "accuracy"),
        _task("mrpc", _SENTENCES, ("not_equivalent", "equivalent"), "accuracy", "f1"),
        _task("stsb", _SENTENCES, None, "pearson", "spearman"),
        _task("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), "accuracy", "f1"),
        _task("mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), "accuracy"),
        _task("qnli", ("question", "sentence"), _ENTAILMENT, "accuracy"),
        _task("rte", _SENTENCES, _ENTAILMENT, "accuracy"),
        _task("wnli", _SENTENCES, ("not_entailment", "entailment"), "accuracy"),
    )
}
