"""The data sets that are known by name: the tasks of GLUE, and CoNLL-2003."""

from __future__ import annotations

from minidisc.tasks import glue
from minidisc.tasks.task import Task

_TYPES = ("PER", "ORG", "LOC", "MISC")

CONLL2003 = Task(
    name="conll2003",
    kind="token-classification",
    text_columns=("tokens",),
    label_column="ner_tags",
    label_names=("O", *(f"{prefix}-{type_}" for type_ in _TYPES for prefix in "BI")),
    named=True,
    metrics=("entity_f1",),
)

BENCHMARKS: dict[str, Task] = {**glue.GLUE, CONLL2003.name: CONLL2003}


def hub_arguments(task: str) -> tuple[str, ...]:
    """What ``datasets.load_dataset`` is called with for a task."""
    if task in glue.GLUE:
        return glue.HUB_ID, task.removeprefix("glue/")
    # The data set of the task's own name is a script, which datasets no longer runs; this is the same data as Parquet.
    return ("lhoestq/conll2003",) if task == CONLL2003.name else (task,)
