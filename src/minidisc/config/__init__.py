"""Settings of every command, as dataclasses; each default and each help text stands here and nowhere else."""

from minidisc.config.budget import TARGETS, Budget
from minidisc.config.compare import CompareSettings
from minidisc.config.compress import CompressSettings, documents_to_write, sandwich_rule
from minidisc.config.data import MAX_LENGTH, DataSettings, RowSettings
from minidisc.config.single_model import EvaluateSettings, ExportSettings, FinetuneSettings
from minidisc.config.training import TrainingSettings

__all__ = [
    "MAX_LENGTH",
    "TARGETS",
    "Budget",
    "CompareSettings",
    "CompressSettings",
    "DataSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FinetuneSettings",
    "RowSettings",
    "TrainingSettings",
    "documents_to_write",
    "sandwich_rule",
]
