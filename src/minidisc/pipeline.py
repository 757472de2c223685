"""The main job: teacher in, student out, every stage's result a file of the run folder."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidisc import budgets, ranks
from minidisc.config import CompressSettings
from minidisc.devices import resolve_device
from minidisc.disk import check_disk, disk_needed
from minidisc.errors import UserError
from minidisc.finishing import finish
from minidisc.listening import Listener, LoggingListener
from minidisc.measure import forget_memory
from minidisc.preflight import Estimate
from minidisc.preparation import Preparation
from minidisc.randomness import callers_randomness
from minidisc.results import CompressionResult, Sizes, read_result
from minidisc.runs import check_folder, check_shared, in_use, open_run, remove_run, settled, trained_with
from minidisc.schedules import SCHEDULES, planned
from minidisc.subnetworks import SubnetworkSpec
from minidisc.values import whole_settings


@callers_randomness()
def compress(
    teacher: str | Path | None = None,
    task: str | None = None,
    *,
    target_sparsity: float | None = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    settings: CompressSettings | None = None,
    **options: Any,
) -> CompressionResult:
    """Compress a fine-tuned classifier, tagger or language model through the best teacher assistant.

    Args:
        teacher: folder or Hub id of the fine-tuned model.
        task: ``glue/NAME``, ``conll2003``, a Hub dataset id, or None for own files (``train_file``,
            ``validation_file``); ``causal-lm`` for a language model.
        target_sparsity: fraction of attention heads and FFN neurons to remove, in (0, 1); 0.9 if there is no budget
            (``target_params`` and others) among the options.
        output_dir: the run folder.
        resume: go on with the run that is in ``output_dir``.
        listener: is told what happens.
        settings: all settings at once; then no other is given.
        options: any other field of `minidisc.config.CompressSettings`.

    Raises:
        UserError: something given cannot be used; nothing was trained.
    """
    named = {"teacher": teacher, "task": task, "target_sparsity": target_sparsity, "output_dir": output_dir}
    settings = whole_settings(CompressSettings, settings, named, options)
    ranks.join(resolve_device(settings.device).type)
    forget_memory()
    with ExitStack() as held:
        return _compress(settings, listener or LoggingListener(), resume, held)


def _compress(asked: CompressSettings, listener: Listener, resume: bool, held: ExitStack) -> CompressionResult:
    """What `compress` does; the folder is then in use until ``held`` ends."""
    folder = Path(asked.output_dir)
    settings = ranks.by_zero(lambda: settled(asked, folder))
    with ranks.zero_first():
        check_folder(folder)
        if not (folder / "results.json").is_file():
            held.enter_context(in_use(folder))
        prepared = Preparation(settings, listener)
        if not (folder / "results.json").is_file():
            prepared.rank_evenly()
            widest = budgets.widest(settings)
            stages = planned(prepared.job(widest, folder))
            check_disk(folder, disk_needed(prepared.shape, widest, stages, prepared.stored_lengths(widest)), folder)
        fresh = not (folder / "run.yaml").is_file()
        # A drop that no candidate kept within may be raised; the candidates are trained already.
        free = ("max_drop",) if settings.max_drop and not (folder / budgets.FILE).is_file() else ()
        # Only what has passed every check above gets a folder. Ranks other than 0 find it made.
        folder = open_run(settings, prepared.fingerprints, resume or ranks.rank() > 0, free)
    check_shared(folder)
    if (folder / "results.json").is_file():
        listener.note(f"{folder} is complete already.")
        result = read_result(folder)
        for line in result.results["warnings"]:
            listener.warn(line)
        if ranks.rank() == 0:
            _leave_out(result.results["settings"]["keep_checkpoints"], folder)
        return result
    try:
        used, others = ranks.by_zero(lambda: trained_with(folder, more=True))
        prepared.rank(folder / "importance.safetensors")
        for line in others:
            prepared.warn(line)
        job, budget = budgets.aimed(prepared, settings, folder)
        prepared.tell_form(job.settings)
    except UserError:
        # What cannot be done, such as to keep a budget, may be known only after the importance.
        if fresh and not (folder / "checkpoints").exists():
            remove_run(folder)
        raise
    outcome = SCHEDULES[settings.schedule](job)

    def saved() -> CompressionResult:
        finish(prepared, job, outcome, folder, budget, used)
        _leave_out(job.settings.keep_checkpoints, folder)
        return read_result(folder)

    return ranks.by_zero(saved)


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        candidates: every sub-network that would be trained, and its sizes; layers are taken for equally important.
        stages: the names of those that each stage would train, the longest way if a choice may shorten it.
        steps: optimiser steps of each stage, if nothing stops it early.
        estimate: what it would take.
    """

    candidates: list[tuple[SubnetworkSpec, Sizes]]
    stages: list[list[str]]
    steps: list[int]
    estimate: Estimate


def plan(
    teacher: str | Path | None = None,
    task: str | None = None,
    *,
    listener: Listener | None = None,
    settings: CompressSettings | None = None,
    **options: Any,
) -> Plan:
    """What `compress` would do and take, from a few steps of some layers; it finishes no stage and writes nothing.

    Args:
        teacher: folder or Hub id of the fine-tuned model.
        task: see `compress`.
        listener: is told what happens.
        settings: all settings at once; then no other is given.
        options: any other field of `minidisc.config.CompressSettings`; ``output_dir`` is needed, for its disk.

    Raises:
        UserError: something given cannot be used.
    """
    settings = whole_settings(CompressSettings, settings, {"teacher": teacher, "task": task}, options)
    if settings.train_text:
        raise UserError(
            "--dry-run writes nothing, and so has no text of --train-text; give --train-file, or start the run, which "
            "says what it will take before it trains."
        )
    listener, budget = listener or LoggingListener(), settings.budget()
    settings = settled(budgets.widest(settings), None)
    if budget is not None:
        sparsity = f"{100 * settings.target_sparsity:g} %"
        listener.note(f"{budget.flag}: the run itself solves for the sparsity; this is for {sparsity}")
    prepared = Preparation(settings, listener)
    prepared.rank_evenly()
    if budget is None:
        prepared.tell_form(settings)
    else:
        budgets.check_counts(prepared, budget)
    job = prepared.job(settings, Path(settings.output_dir))
    stages = planned(job)
    specs = sorted({spec for stage in stages for spec in stage}, key=lambda spec: spec.sparsity)
    return Plan(
        candidates=[(spec, prepared.shape.sizes(spec)) for spec in specs],
        stages=[[spec.name for spec in stage] for stage in stages],
        steps=[job.steps(number) for number in range(1, len(stages) + 1)],
        estimate=prepared.plan(job),
    )


def _leave_out(keep_checkpoints: bool, folder: Path) -> None:
    """Remove what a finished run has no use for."""
    if not keep_checkpoints:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
