"""Rows to batches, and the metric: sequence and token classification, regression, causal language modelling."""

from minidisc.tasks.benchmarks import BENCHMARKS
from minidisc.tasks.documents import CAUSAL_LM
from minidisc.tasks.encoding import Cut, collator, encode, encode_for, label_array, no_padding, pack
from minidisc.tasks.glue import GLUE
from minidisc.tasks.labels import align_labels, model_outputs, unnamed_warning
from minidisc.tasks.loading import MINIMUM_TRAIN_ROWS, TaskData, load_data
from minidisc.tasks.metrics import METRICS
from minidisc.tasks.reading import read_table
from minidisc.tasks.split import hold_out
from minidisc.tasks.task import Kind, Task

__all__ = [
    "BENCHMARKS",
    "CAUSAL_LM",
    "GLUE",
    "METRICS",
    "MINIMUM_TRAIN_ROWS",
    "Cut",
    "Kind",
    "Task",
    "TaskData",
    "align_labels",
    "collator",
    "encode",
    "encode_for",
    "hold_out",
    "label_array",
    "load_data",
    "model_outputs",
    "no_padding",
    "pack",
    "read_table",
    "unnamed_warning",
]
