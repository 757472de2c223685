"""Settings of every command, as dataclasses; each default and each help text stands here and nowhere else."""

from minidisc.config.budget import TARGETS, Budget
from minidisc.config.compare import CompareSettings
from minidisc.config.compress import CompressSettings, documents_to_write, sandwich_rule
from minidisc.config.data import DataSettings
from minidisc.config.single_model import EvaluateSettings, ExportSettings, FinetuneSettings
from minidisc.config.training import TrainingSettings

__all__ = [
    "TARGETS",
    "Budget",
    "CompareSettings",
    "CompressSettings",
    "DataSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FinetuneSettings",
    "TrainingSettings",
    "documents_to_write",
    "sandwich_rule",
]
