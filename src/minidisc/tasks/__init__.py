"""Rows to batches, and the metric: sequence and token classification, regression; GLUE and CoNLL-2003 as data."""

from minidisc.tasks.benchmarks import BENCHMARKS
from minidisc.tasks.encoding import collator, encode, label_array
from minidisc.tasks.glue import GLUE
from minidisc.tasks.labels import align_labels, placeholder_names
from minidisc.tasks.loading import TaskData, load_data
from minidisc.tasks.metrics import METRICS
from minidisc.tasks.reading import read_table
from minidisc.tasks.split import hold_out
from minidisc.tasks.task import Kind, Task

__all__ = [
    "BENCHMARKS",
    "GLUE",
    "METRICS",
    "Kind",
    "Task",
    "TaskData",
    "align_labels",
    "collator",
    "encode",
    "hold_out",
    "label_array",
    "load_data",
    "placeholder_names",
    "read_table",
]
