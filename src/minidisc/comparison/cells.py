"""The cells of a comparison: one method at one target with one seed; what is the same work is done once."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidisc.batching import LengthGroupedOrder
from minidisc.comparison.methods import Method, in_order, parse_method
from minidisc.comparison.table import Comparison, cell_title, markdown, of_cells, read_comparison
from minidisc.config import CompareSettings, CompressSettings
from minidisc.disk import check_disk, disk_of_cells
from minidisc.errors import ChangedError, UserError
from minidisc.files import new_file, read_json, write_json
from minidisc.listening import Listener, LoggingListener
from minidisc.losses import WITHOUT_TEACHER
from minidisc.measure import Shape, sizes_of
from minidisc.prediction import flops_over
from minidisc.preparation import Preparation
from minidisc.randomness import callers_randomness
from minidisc.refusals import chance_warning
from minidisc.results import Cost, plain
from minidisc.runs import check_folder, in_use, open_run, settled, trained_with
from minidisc.schedules import SCHEDULES, Job, planned
from minidisc.tasks import label_array
from minidisc.values import changes, fingerprint, whole_settings


@callers_randomness()
def compare(
    teacher: str | Path | None = None,
    task: str | None = None,
    *,
    output_dir: str | Path | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    settings: CompareSettings | None = None,
    **options: Any,
) -> Comparison:
    """Compare methods on one teacher, with the same rows, batches and steps.

    Each method at each target with each seed is a cell, whose figures are a file of ``output_dir``; stages that
    several cells have in common are trained once. A sandwich holds the sizes of all targets.

    Args:
        teacher: folder or Hub id of the fine-tuned model.
        task: ``glue/NAME``, a Hub dataset id, or None for own files (``train_file``, ``validation_file``).
        output_dir: folder of the comparison.
        resume: go on with the comparison that is in ``output_dir``; methods and seeds may have been added.
        listener: is told what happens.
        settings: all settings at once; then no other is given.
        options: any other field of `minidisc.config.CompareSettings`.

    Returns:
        The table; ``failures`` names the cells that could not be finished.

    Raises:
        UserError: something given cannot be used; nothing was trained.
        ChangedError: teacher or rows have changed meanwhile; cells that were finished before stay.
    """
    named = {"teacher": teacher, "task": task, "output_dir": output_dir}
    settings = whole_settings(CompareSettings, settings, named, options)
    folder = Path(settings.output_dir)
    check_folder(folder)
    with in_use(folder):
        return _Comparison(settings, resume, listener or LoggingListener()).finish()


class _Comparison:
    def __init__(self, settings: CompareSettings, resume: bool, listener: Listener) -> None:
        settings = settled(settings, Path(settings.output_dir))
        self.settings, self.listener, self.folder = settings, listener, Path(settings.output_dir)
        self.methods = in_order([parse_method(text) for text in settings.methods])
        cells = [
            method.settings(settings, target, settings.seeds[0])
            for method in self.methods
            for target in settings.target_sparsities
        ]
        first = self._prepare(settings.seeds[0], again=False)
        for cell in cells:
            first.check(cell)
        missing = self._missing(self._cells())
        if missing:
            # What finished cells have left there is not all of use to missing ones; but rather that than a refusal.
            check_disk(self.folder, self._disk_of(missing, first), self.folder / "checkpoints")
        open_run(settings, first.fingerprints, resume, free=("methods", "seeds"))
        self._versions, self._warnings = trained_with(self.folder, more=bool(missing))
        for line in self._warnings:
            listener.warn(line)
        self._prepared, self._fingerprints = {settings.seeds[0]: first}, first.fingerprints
        self._teacher: dict[str, Any] | None = None

    def finish(self) -> Comparison:
        settings, cells, wanted = self.settings, self._cells(), self._wanted()
        failures: dict[str, str] = {}
        started, trained = time.monotonic(), 0
        for number, (seed, target, method) in enumerate(cells, start=1):
            file = self._file(method, target, seed)
            if file.is_file():
                continue
            spent = time.monotonic() - started
            left = spent / trained * len(self._missing(cells[number - 1 :])) if trained else None
            title = cell_title(method.name, target, seed)
            self.listener.cell(title, number, len(cells), left)
            try:
                cell = self._train(method, target, seed)
            except ChangedError:
                raise
            except (UserError, FloatingPointError, RuntimeError, MemoryError) as error:
                failures[title] = str(error).strip().split("\n")[0] or type(error).__name__
                self.listener.warn(f"{title} failed: {failures[title]}")
                continue
            write_json(file, cell)
            trained += 1
            # A comparison may take days: what is finished can be read.
            self._write(failures)
        self._write(failures)
        if not settings.keep_checkpoints and all(file.is_file() for file in wanted):
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        return read_comparison(self.folder)

    def _cells(self) -> list[tuple[int, float, Method]]:
        settings = self.settings
        return [
            (seed, target, method)
            for seed in settings.seeds
            for target in settings.target_sparsities
            for method in self.methods
        ]

    def _missing(self, cells: list[tuple[int, float, Method]]) -> list[tuple[int, float, Method]]:
        return [cell for cell in cells if not self._file(cell[2], cell[1], cell[0]).is_file()]

    def _wanted(self) -> list[Path]:
        """Files of the cells that stages are kept for: this call's, and those of earlier ones that were cut short."""
        names = {self._file(method, target, seed).name for seed, target, method in self._cells()}
        # Goes when the stages do.
        record = self.folder / "checkpoints" / "cells.json"
        if record.is_file():
            names.update(read_json(record))
        write_json(record, sorted(names))
        return [self.folder / "cells" / name for name in names]

    def _disk_of(self, cells: list[tuple[int, float, Method]], first: Preparation) -> int:
        """What cells take on disk, layers taken for equally important."""
        first.rank_evenly()
        found = []
        for seed, target, method in cells:
            job = first.job(method.settings(self.settings, target, seed), self.folder, shared=True)
            one, *others = planned(job)
            # Who teaches those is not known yet, and so not which of them are equal.
            later = [((seed, target, method.name, number), specs) for number, specs in enumerate(others)]
            found.append((job.settings, [(job.key_of_first(one), one), *later]))
        return disk_of_cells(first.shape, found, first.stored_lengths)

    def _prepare(self, seed: int, again: bool = True) -> Preparation:
        settings, targets = self.settings, self.settings.target_sparsities
        own = {f.name: getattr(settings, f.name) for f in dataclasses.fields(CompressSettings)}
        # Every cell's own settings are checked too; this target is what they have in common.
        shared = CompressSettings(**{**own, "target_sparsity": max(targets), "seed": seed})
        return Preparation(shared, self.listener, targets, draw=settings.seed, again=again)

    def _ranked(self, seed: int) -> Preparation:
        """The preparation of a seed, its teacher ordered; one at a time is kept in memory.

        Raises:
            ChangedError: it is of another teacher, or other rows, than those of the seeds before.
        """
        prepared = self._prepared.get(seed)
        if prepared is None:
            prepared = self._prepare(seed)
            if changed := changes(self._fingerprints, prepared.fingerprints):
                raise ChangedError(
                    f"the teacher or the rows have changed since the comparison began ({'; '.join(changed)}); put the "
                    "old ones back and go on with --resume, or begin anew in another --output-dir."
                )
        if not prepared.ranked:
            prepared.rank(self.folder / f"importance-{seed}.safetensors")
        self._prepared = {seed: prepared}
        return prepared

    def _file(self, method: Method, target: float, seed: int) -> Path:
        name = "".join(c if c.isalnum() or c in ".=-" else "_" for c in method.name)
        return self.folder / "cells" / f"{name}_{fingerprint(method.name)[:6]}_{100 * target:g}_{seed}.json"

    def _train(self, method: Method, target: float, seed: int) -> dict[str, Any]:
        prepared = self._ranked(seed)
        job = prepared.job(method.settings(self.settings, target, seed), self.folder, shared=True)
        if method.flops_of is not None:
            job = _with_flops(job, self._spent(method, target, seed), prepared.fits(job.settings))
            if "patience" not in method.changes:
                job = _to_the_end(job)
        outcome = SCHEDULES[method.schedule](job)
        assert outcome.spec is not None
        assistants = [
            {
                "sparsity": a.candidate.spec.sparsity,
                "selection_metrics": a.candidate.metrics,
                "metrics": prepared.evaluate(a.model, "validation"),
            }
            for a in outcome.assistants
        ]
        costs = {"importance": prepared.cost, **outcome.costs}
        metrics = prepared.evaluate(outcome.student, "validation")
        labels = label_array(prepared.rows["validation"])
        student = f"the student of {cell_title(method.name, target, seed)}"
        warning = chance_warning(prepared.task, metrics["metric"], labels, student)
        if warning:
            self.listener.warn(warning)
        return {
            "method": method.name,
            "target_sparsity": target,
            "seed": seed,
            "metrics": metrics,
            "selection_metrics": outcome.selection_metrics,
            "sizes": asdict(sizes_of(outcome.student, prepared.architecture, prepared.shape.prunable(outcome.spec))),
            "assistants": assistants,
            "candidates": [
                {"sparsity": c.spec.sparsity, "metric": c.metric, "tradeoff": c.tradeoff}
                for table in outcome.candidates[:1]
                for c in table
            ],
            "trials": outcome.trials,
            "cost": asdict(sum(costs.values(), Cost())),
            "stages": {name: asdict(cost) for name, cost in costs.items()},
            "machine": prepared.machine,
            "versions": self._versions,
            "warnings": [warning] if warning else [],
        }

    def _spent(self, method: Method, target: float, seed: int) -> float:
        """FLOPs of the cell whose budget a method is given."""
        other = next(m for m in self.methods if m.name == method.flops_of)
        file = self._file(other, target, seed)
        if not file.is_file():
            raise UserError(f"the cell of {other.name} failed, whose FLOPs it was to be given.")
        stages = read_json(file)["stages"]
        return sum(cost["flops"] for name, cost in stages.items() if name != "importance")

    def _write(self, failures: dict[str, str]) -> None:
        # Those of an earlier call with other methods or seeds too.
        cells = [read_json(file) for file in (self.folder / "cells").glob("*.json")]
        results = of_cells(cells, asdict(self.settings), self.settings.methods)
        # Of whichever seed: their validation rows are the same.
        (prepared,) = self._prepared.values()
        self._teacher = self._teacher or plain(prepared.teacher_result())
        content = {
            "task": {"name": prepared.task.name, "kind": prepared.task.kind, "metrics": list(prepared.task.metrics)},
            "rows": prepared.rows.counts(),
            "teacher": self._teacher,
            **results,
            "failures": failures,
            "fingerprints": prepared.fingerprints,
            "versions": self._versions,
            "warnings": [*self._warnings, *(line for cell in results["cells"] for line in cell.get("warnings", ()))],
        }
        with new_file(self.folder / "compare.md") as temporary:
            temporary.write_text(markdown(content), encoding="utf-8")
        write_json(self.folder / "compare.json", content)


def _with_flops(job: Job, flops: float, fits: bool) -> Job:
    """The job with as many steps as bring its one stage nearest to ``flops``.

    The teacher's outputs are stored, if they can be (``fits``), where so many steps come to a row again.
    """

    def given(stored: bool) -> CompressSettings:
        return dataclasses.replace(job.settings, max_steps=_steps(job, flops, stored))

    settings = given(fits)
    stored = fits and settings.repeats(len(job.train_rows))
    if fits and not stored:
        settings = given(False)
    return dataclasses.replace(job, settings=settings, stored=stored)


def _to_the_end(job: Job) -> Job:
    """The job with more patience than it has steps, so that it spends what it is given."""
    settings = job.settings
    patience = max(settings.patience, 1 + settings.steps(len(job.train_rows)))
    return dataclasses.replace(job, settings=dataclasses.replace(settings, patience=patience))


def _steps(job: Job, flops: float, stored: bool) -> int:
    """The number of steps that comes nearest to ``flops``, batch by batch as they will be trained."""
    settings = job.settings
    source, spec = job.untrained_student()
    student = Shape.of(source.model, job.architecture)
    taught = settings.effective_loss not in WITHOUT_TEACHER
    by_teacher = partial(job.shape.forward_flops, job.shape.full()) if taught else lambda *_: 0.0
    lengths = np.asarray(job.train_rows["length"][:])
    update = settings.batch_size * settings.gradient_accumulation_steps
    order = LengthGroupedOrder(lengths.tolist(), update, settings.seed)
    steps, before = 0, 0.0
    spent = flops_over(lengths, 2 * settings.batch_size, by_teacher) if stored else 0.0
    for epoch in itertools.count():
        order.set_epoch(epoch)
        rows = np.fromiter(order, dtype=int)
        for start in range(0, len(rows), update):
            if steps and spent >= flops:
                # The last step is kept if that is nearer than without it.
                return steps - (spent - flops > flops - before and steps > 1)
            before = spent
            part = rows[start : start + update]
            for first in range(0, len(part), settings.batch_size):
                batch = lengths[part[first : first + settings.batch_size]]
                shape = len(batch), int(batch.max())
                spent += 0 if stored else by_teacher(*shape)
                spent += 3 * student.forward_flops(spec, *shape)
            steps += 1
    raise AssertionError("counts without end")
