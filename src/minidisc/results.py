"""What a run has made, typed, and as ``RUN/results.json`` holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minidisc.errors import UserError
from minidisc.files import read_json
from minidisc.subnetworks import SubnetworkSpec

REST_OF = "the rest of "
"""How the source of rows begins that others were held out of, and that are no whole file or split any more."""


@dataclass(frozen=True)
class Sizes:
    """Parameter counts: ``prunable`` (heads and neurons), ``without_embeddings``, and ``all``."""

    prunable: int
    without_embeddings: int
    all: int


@dataclass
class Cost:
    """What a stage took: optimiser steps, FLOPs, wall and processor seconds, peak memory of the process in bytes."""

    steps: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Both after one another."""
        total = {k: v + getattr(other, k) for k, v in asdict(self).items()}
        return Cost(**{**total, "peak_memory": max(self.peak_memory, other.peak_memory)})


@dataclass(frozen=True)
class ModelResult:
    """A final model.

    Attributes:
        path: its folder, or what the teacher was loaded from.
        spec: what is left in each layer.
        sizes: its size, three ways.
        metrics: on the validation rows, in [0, 1], higher is better.
        selection_metrics: likewise on the rows that chose the assistant.
    """

    path: Path
    spec: SubnetworkSpec
    sizes: Sizes
    metrics: dict[str, float]
    selection_metrics: dict[str, float]

    @property
    def sparsity(self) -> float:
        """The fraction of heads and neurons that was to be removed."""
        return self.spec.sparsity


@dataclass(frozen=True)
class CompressionResult:
    """What a run has made; ``results`` is the content of ``RUN/results.json``, with the paths that hold now."""

    output_dir: Path
    teacher: ModelResult
    assistants: list[ModelResult]
    student: ModelResult
    candidates: list[dict[str, Any]]
    cost: Cost
    results: dict[str, Any]

    @property
    def stages(self) -> int:
        """How many stages were asked for."""
        return self.results["settings"]["stages"]

    @property
    def report(self) -> Path:
        """The run's report."""
        return self.output_dir / "report.html"


def read_result(folder: Path) -> CompressionResult:
    """The result of a finished run.

    Raises:
        UserError: the folder holds none.
    """
    if not (folder / "results.json").is_file():
        raise UserError(f"{folder} holds no finished run; give the --output-dir of 'minidisc compress'.")
    try:
        results = read_json(folder / "results.json")
        # It says where the run was made; since then it may have been moved, or copied and another made there.
        for model in (*results["assistants"], results["student"]):
            model["path"] = str(folder / Path(model["path"]).name)
        return CompressionResult(
            output_dir=folder,
            teacher=_model(results["teacher"]),
            assistants=[_model(a) for a in results["assistants"]],
            student=_model(results["student"]),
            candidates=results["candidates"],
            cost=Cost(**results["cost"]["total"]),
            results=results,
        )
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder / 'results.json'} is not what 'minidisc compress' has written; give the --output-dir of a run."
        ) from None


def plain(model: ModelResult) -> dict[str, Any]:
    """A model's result as JSON holds it."""
    value = asdict(model)
    return {**value.pop("spec"), **value, "path": str(model.path)}


def _model(value: dict[str, Any]) -> ModelResult:
    return ModelResult(
        path=Path(value["path"]),
        spec=SubnetworkSpec(value["sparsity"], tuple(value["heads"]), tuple(value["neurons"])),
        sizes=Sizes(**value["sizes"]),
        metrics=value["metrics"],
        selection_metrics=value["selection_metrics"],
    )
