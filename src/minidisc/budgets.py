"""From what a student may take or lose to its sparsity."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from minidisc import ranks
from minidisc.confidence import drops
from minidisc.config import Budget, CompressSettings
from minidisc.errors import UserError
from minidisc.extraction import DTYPES, extract, save_model
from minidisc.files import read_json, write_json
from minidisc.latency import batch_of, is_busy, one_thread, side_by_side
from minidisc.measure import processor
from minidisc.preparation import Preparation
from minidisc.schedules import Job

_STEPS = 1000  # sparsities are solved for in steps of a thousandth
SPARSEST_CANDIDATE = 0.95
_TIMED = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
FILE = "budget.json"
_HEADER = 256  # bytes of a file that a weight's name and shape take at the most

Timing = Mapping[str, float]


def widest(settings: CompressSettings) -> CompressSettings:
    """Settings whose candidates are all that a budget may lead to, for what has to be known before it is solved."""
    budget = settings.budget()
    if budget is None:
        return settings
    grid = settings.grid or [SPARSEST_CANDIDATE]
    if budget.name == "max_drop":
        if settings.grid and len({*grid}) == 1:
            raise UserError(f"--grid has one size, and {budget.flag} chooses among several; give more.")
        return settings.at(max(grid))
    return settings.at(max(*grid, SPARSEST_CANDIDATE))


def aimed(prepared: Preparation, settings: CompressSettings, folder: Path) -> tuple[Job, dict[str, Any] | None]:
    """The job that fits the settings' budget, and why; with a given sparsity the job alone.

    Solved once: a run that is resumed reads ``budget.json``. For ``max_drop`` the first sandwich is trained here.

    Raises:
        UserError: the budget cannot be kept, or leaves nothing to do.
    """
    budget = settings.budget()
    if budget is None:
        return _announced(prepared, prepared.job(settings, folder)), None
    file = folder / FILE
    if budget.name == "max_drop":
        job, found = _within_drop(prepared, settings, budget, folder)
    else:
        solve = {"target_params": _within_params, "target_size": _within_size, "target_latency": _within_latency}
        found = ranks.by_zero(
            lambda: read_json(file) if file.is_file() else solve[budget.name](prepared, settings, budget)
        )
        prepared.aim(settings.at(found["sparsity"]))
        job = _announced(prepared, prepared.job(prepared.settings, folder))
    found = {"setting": budget.name, "asked": budget.text, "limit": budget.limit, **found}
    ranks.by_zero(lambda: write_json(file, found))
    prepared.listener.note(f"{budget.flag}: {found['why']}")
    return job, found


def check_counts(prepared: Preparation, budget: Budget) -> None:
    """Refuse a budget that a run would refuse whatever is important, before that is known.

    The neurons of the smallest student depend on it, and what lies beside the weights in a file is not counted: of a
    budget at the very edge `aimed` knows more.

    Raises:
        UserError: there are too few parameters, or too many.
    """
    if budget.name not in ("target_params", "target_size"):
        return
    shape, smallest = prepared.shape, prepared.spec(1 - 1 / _STEPS)
    if prepared.settings.widths != "uniform":
        smallest = dataclasses.replace(smallest, neurons=(0,) * len(smallest.neurons))
    each, unit, beside = 1, "parameters", 0
    if budget.name == "target_size":
        dtype = prepared.settings.save_dtype
        each, unit = DTYPES[dtype].itemsize, f"bytes in {dtype}, as students are saved"
        beside = _HEADER * len(prepared.loaded.model.state_dict())
    teacher, least = each * prepared.teacher_sizes().all, each * shape.sizes(smallest).all
    if budget.limit >= teacher + beside:
        raise UserError(f"{budget.flag}: the teacher has no more than {teacher:,} {unit}; give less.")
    if budget.limit < least:
        raise UserError(
            f"{budget.flag} cannot be had: the smallest student has {least:,} {unit}, or a little more; "
            f"{each * shape.embedding_parameters:,} of them are of embeddings, in which no head or neuron lies"
            f"{_with_fewer_pieces(prepared)}."
        )


def reached(
    prepared: Preparation, found: dict[str, Any], teacher: dict[str, Any], student: dict[str, Any], model: Any
) -> dict[str, Any]:
    """What the finished student takes or loses.

    Args:
        prepared: of the run.
        found: what `aimed` gave.
        teacher: its entry of ``results.json``.
        student: its entry of ``results.json``.
        model: the student itself.

    Returns:
        ``value``, in the unit of the limit, ``text`` for a reader, and ``kept``, whether the budget was.
    """
    more: dict[str, Any] = {}
    if found["setting"] == "target_params":
        value = student["sizes"]["all"]
        text = f"{value:,} parameters"
    elif found["setting"] == "target_size":
        value = _weights(Path(student["path"]))
        text = f"{value:,} bytes"
    elif found["setting"] == "target_latency":
        inputs = batch_of(prepared.rows["train"], found["batch_size"], found["length"])
        more = _timed({"student": model.cpu()}, inputs)["student"]
        value, text = more["processor_milliseconds"], _milliseconds(more)
    else:
        kinds = ("selection_metrics", "metrics")
        value, unseen = (teacher[kind]["metric"] - student[kind]["metric"] for kind in kinds)
        text = f"{_apart(value)} the teacher on the selection rows, {_apart(unseen)} it on the validation rows"
    return {"value": value, "text": text, "kept": round(value, 9) <= found["limit"], **more}


def densest(measure: Callable[[float], float], limit: float) -> float | None:
    """The least sparsity, in thousandths, at which a value that falls with it is within a limit; None if none is.

    Args:
        measure: the value at a sparsity in (0, 1).
        limit: the largest value that is accepted.
    """
    low, high = 0, _STEPS - 1
    if measure(high / _STEPS) > limit:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if measure(middle / _STEPS) <= limit else (middle, high)
    return high / _STEPS


def _within_params(prepared: Preparation, settings: CompressSettings, budget: Budget) -> dict[str, Any]:
    shape = prepared.shape
    teacher = prepared.teacher_sizes().all
    if budget.limit >= teacher:
        raise UserError(f"{budget.flag}: the teacher has no more than {teacher:,} parameters; give fewer.")

    def count(sparsity: float) -> int:
        return shape.sizes(prepared.spec(sparsity)).all

    sparsity = densest(count, budget.limit)
    if sparsity is None:
        raise UserError(
            f"{budget.flag} cannot be had: embeddings alone, in which no head or neuron lies, have "
            f"{shape.embedding_parameters:,} parameters; the smallest student has {count(1 - 1 / _STEPS):,}"
            f"{_with_fewer_pieces(prepared)}."
        )
    value = count(sparsity)
    why = (
        f"{100 * sparsity:g} % sparsity, the least with which the student has no more: {value:,} of the teacher's "
        f"{teacher:,} parameters, embeddings included"
    )
    return {"sparsity": sparsity, "teacher": teacher, "why": why}


def _with_fewer_pieces(prepared: Preparation) -> str:
    return "" if prepared.vocabulary else "; --trim-vocabulary makes it smaller"


def _within_size(prepared: Preparation, settings: CompressSettings, budget: Budget) -> dict[str, Any]:
    model, shape, dtype = prepared.loaded.model, prepared.shape, settings.save_dtype
    each = DTYPES[dtype].itemsize

    def written(sparsity: float) -> int:
        with tempfile.TemporaryDirectory(dir=settings.output_dir) as folder:
            save_model(extract(model, prepared.spec(sparsity)), Path(folder), dtype)
            return _weights(Path(folder))

    def weights(sparsity: float) -> int:
        return each * shape.sizes(prepared.spec(sparsity)).all

    # Names and shapes take some bytes beside the weights, which hardly depend on the width.
    smallest, sparsest = written(1 - 1 / _STEPS), 1 - 1 / _STEPS
    header = smallest - weights(sparsest)
    teacher = each * prepared.teacher_sizes().all + header
    if budget.limit >= teacher:
        raise UserError(
            f"{budget.flag}: the teacher's weights take no more than {teacher:,} bytes in {dtype}, as students "
            "are saved; give less."
        )
    if budget.limit < smallest:
        raise UserError(
            f"{budget.flag} cannot be had: embeddings alone, in which no head or neuron lies, take "
            f"{each * shape.embedding_parameters:,} bytes; the smallest student takes {smallest:,}"
            f"{_with_fewer_pieces(prepared)}."
        )
    sparsity = densest(lambda s: weights(s) + header, budget.limit)
    assert sparsity is not None
    while (value := written(sparsity)) > budget.limit:
        sparsity = round(sparsity + 1 / _STEPS, 3)
    why = (
        f"{100 * sparsity:g} % sparsity, the least with which the saved weights take no more: {value:,} of the "
        f"{teacher:,} bytes that the teacher's take in {dtype}"
    )
    if prepared.half:
        why += f" (its own files: {prepared.half.text})"
    return {"sparsity": sparsity, "teacher": teacher, "why": why}


def _within_latency(prepared: Preparation, settings: CompressSettings, budget: Budget) -> dict[str, Any]:
    length = settings.latency_length or prepared.mean_length
    inputs = batch_of(prepared.rows["train"], settings.latency_batch_size, length)
    model = prepared.loaded.model
    prepared.listener.note(f"timing students of {len(_TIMED) - 1} sizes and the teacher on one thread")

    def measure(sparsities: tuple[float, ...]) -> Mapping[float, Timing]:
        models = {s: extract(model, prepared.spec(s) if s else prepared.full) for s in sparsities}
        return _timed(models, inputs)

    sparsity, times = fast_enough(measure, budget)
    if is_busy(times.values()):
        prepared.listener.warn(
            "the machine is busy; times are of the processor, which other processes slow down too, if less."
        )
    why = (
        f"{100 * sparsity:g} % sparsity, the least that was as fast in nine of ten rounds: "
        f"{_milliseconds(times[sparsity])}, "
        f"the teacher {_milliseconds(times[0.0])}, for {settings.latency_batch_size} × {length} tokens on one thread "
        f"of {processor()}"
    )
    return {
        "sparsity": sparsity,
        "teacher": times[0.0]["processor_milliseconds"],
        "why": why,
        "batch_size": settings.latency_batch_size,
        "length": length,
        "times": [{"sparsity": s, **times[s]} for s in sorted(times)],
    }


def fast_enough(
    measure: Callable[[tuple[float, ...]], Mapping[float, Timing]], budget: Budget
) -> tuple[float, dict[float, Timing]]:
    """The least sparsity, in thousandths, that was measured to keep a budget of time, and all times that were.

    Some sizes are timed side by side; between the first that is fast enough and the one before the time is taken to
    be a straight line; what that says is measured, and made sparser by a hundredth until nine of ten rounds keep the
    budget: with the median alone at the limit, every second student would miss it when it is measured again. If none
    of these does, the first of the others that did is taken.

    Args:
        measure: times of the networks of these sparsities, 0 being the teacher.
        budget: the limit, in milliseconds of the processor.

    Raises:
        UserError: the teacher is fast enough, or no student is.
    """
    times = dict(measure(_TIMED))
    taken = [times[s]["processor_milliseconds"] for s in _TIMED]
    if taken[0] <= budget.limit:
        raise UserError(f"{budget.flag}: the teacher takes no more than {_milliseconds(times[0.0])}; give less.")
    # Noise may make a sparser size the slower one, so it is the first within the limit that counts.
    fast = next((i for i, time in enumerate(taken) if time <= budget.limit), None)
    if fast is not None:
        (s, a), (t, b) = ((_TIMED[i], taken[i]) for i in (fast - 1, fast))
        first = math.ceil(_STEPS * (s + (t - s) * (a - budget.limit) / (a - b)))
        for step in range(first, _STEPS, _STEPS // 100):
            sparsity = step / _STEPS
            if sparsity not in times:
                times.update(measure((sparsity,)))
            if times[sparsity]["high"] <= budget.limit:
                return sparsity, times
    kept = [s for s in times if times[s]["high"] <= budget.limit]
    if kept:
        return min(kept), times
    fastest = min(times, key=lambda s: times[s]["processor_milliseconds"])
    raise UserError(
        f"{budget.flag} cannot be had: the fastest student, with {100 * fastest:g} % sparsity, takes "
        f"{_milliseconds(times[fastest])}; embeddings, norms and the classifier are kept whole."
    )


def _within_drop(
    prepared: Preparation, settings: CompressSettings, budget: Budget, folder: Path
) -> tuple[Job, dict[str, Any]]:
    """Train all candidates, and make the sparsest one that loses little enough the target."""
    prepared.aim(widest(settings))
    job = _announced(prepared, prepared.job(prepared.settings, folder))
    stage = job.train("sandwich-1", [job.teacher], job.teacher, job.pool, number=1)
    table = stage.table(job)
    logits = prepared.teacher_logits("selection"), stage.trainer.best_logits([row.spec for row in table])
    labels = stage.trainer.selection_labels()
    losses = ranks.by_zero(lambda: drops(job.task, *logits, labels, budget.limit, settings.seed))
    rows: list[dict[str, Any]] = [
        {"sparsity": row.spec.sparsity, "drop": drop, "interval": interval, "probability": probability}
        for row, (drop, interval, probability) in zip(table, losses, strict=True)
    ]
    within = [row for row in rows if row["drop"] <= budget.limit]
    if not within:
        nearest = min(rows, key=lambda row: row["drop"])
        enough = math.ceil(round(1e4 * nearest["drop"], 5)) / 1e4
        raise UserError(
            f"{budget.flag} cannot be had: of the candidates {100 * nearest['sparsity']:g} % loses least, "
            f"{nearest['drop']:.4f} of the metric; go on with --resume and --max-drop {enough:.4f} or more, "
            "or start anew with a denser --grid."
        )
    chosen = max(within, key=lambda row: row["sparsity"])
    low, high = chosen["interval"]
    why = (
        f"{100 * chosen['sparsity']:g} % sparsity, the smallest candidate that loses no more: its metric is "
        f"{_apart(chosen['drop'])} the teacher's on the selection rows (95 % interval {_apart(low)} to "
        f"{_apart(high)}); on other such rows it would lose no more with probability {chosen['probability']:.2f}"
    )
    resolved = settings.at(chosen["sparsity"])
    candidates = [spec for spec in job.candidates if spec.sparsity <= chosen["sparsity"]]
    found = {"sparsity": chosen["sparsity"], "teacher": 0.0, "why": why, "candidates": rows}
    return dataclasses.replace(job, settings=resolved, candidates=candidates), found


def _apart(drop: float) -> str:
    """Where a metric is that is so much less than another: ``0.0123 below``, and ``above`` if it is more."""
    return f"{abs(drop):.4f} {'above' if round(drop, 4) < 0 else 'below'}"


def _announced(prepared: Preparation, job: Job) -> Job:
    prepared.listener.estimated(prepared.estimate(job))
    return job


def _timed(models: Mapping[Any, Any], inputs: dict[str, torch.Tensor]) -> dict[Any, dict[str, float]]:
    with one_thread():
        return side_by_side(models, inputs)


def _milliseconds(timing: Timing) -> str:
    return f"{timing['processor_milliseconds']:.3g} ms ({timing['low']:.3g} to {timing['high']:.3g} in 80 % of rounds)"


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
