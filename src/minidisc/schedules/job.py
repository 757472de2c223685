"""What every schedule works on, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minidisc.architectures import Architecture
from minidisc.config import CompressSettings
from minidisc.extraction import extract
from minidisc.measure import Cost, Shape
from minidisc.resumable import trainer_arguments
from minidisc.selection import Candidate
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import Task
from minidisc.trainer import SandwichArguments, SandwichTrainer


@dataclass
class Job:
    """A teacher, ordered by importance, the rows, and the candidates; the last candidate is the student's size.

    ``progress(stage)`` returns the callback that `minidisc.resumable.ResumableTrainer` takes.
    """

    settings: CompressSettings
    folder: Path
    architecture: Architecture
    teacher: Any
    tokenizer: Any
    task: Task
    outputs: Sequence[int]
    train_rows: Any
    selection_rows: Any
    shape: Shape
    candidates: list[SubnetworkSpec]
    progress: Callable[[str], Any]

    @property
    def target(self) -> SubnetworkSpec:
        """The student's size."""
        return self.candidates[-1]

    def sandwich(
        self,
        stage: str,
        teacher: Any,
        source: Any,
        candidates: Sequence[SubnetworkSpec],
        state: dict[str, Any] | None = None,
    ) -> SandwichTrainer:
        """Train candidates of ``source`` (with the weights ``state``) against ``teacher``; or take up where it was.

        ``teacher`` may be a list, see `SandwichTrainer`.
        The shared network is only as wide as the largest candidate, since nothing beyond it would ever be used.
        """
        largest = min(candidates, key=lambda c: c.sparsity)
        trainer = SandwichTrainer(
            extract(source, largest, state),
            SandwichArguments(
                **trainer_arguments(self.settings, self.folder / "checkpoints" / stage),
                candidates_per_step=self.settings.candidates_per_step,
                dropout=self.settings.dropout,
                train_embeddings=self.settings.train_embeddings,
            ),
            teacher=teacher,
            candidates=candidates,
            task=self.task,
            outputs=self.outputs,
            train_rows=self.train_rows,
            selection_rows=self.selection_rows,
            tokenizer=self.tokenizer,
            progress=self.progress(stage),
        )
        trainer.fit()
        return trainer


@dataclass
class Assistant:
    """A teacher assistant: the row of the table it was chosen from, and the dense network."""

    candidate: Candidate
    model: Any


@dataclass
class Outcome:
    """What a schedule made.

    ``candidates`` holds the table of each sandwich from which an assistant was chosen, ``selection_metrics`` the
    student's on the selection rows, ``history`` every evaluation of every stage, ``costs`` each stage's.
    """

    student: Any
    selection_metrics: dict[str, float]
    assistants: list[Assistant] = field(default_factory=list)
    candidates: list[list[Candidate]] = field(default_factory=list)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)

    def add_stage(self, stage: str, trainer: SandwichTrainer) -> None:
        """Note a finished stage's evaluations and cost."""
        self.history[stage] = trainer.history
        self.costs[stage] = trainer.cost
