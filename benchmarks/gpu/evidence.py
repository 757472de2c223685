"""The evidence of ``benchmarks/evidence.py`` on one GPU without a network, several cells at a time.

    python benchmarks/gpu/evidence.py pack --data-dir DIR --carry carry
    python benchmarks/gpu/evidence.py run --carry carry --work OUT --minutes 7.5 [--plan whole] [--tasks mrpc …]
    python benchmarks/gpu/evidence.py report --work OUT --target results/gpu_evidence [--plan whole]

``pack`` puts what is needed into one folder of under 60 MB: the backbone in half precision and the tasks' rows.
``run`` begins no cell after ``--minutes``; started again on the same folder it goes on. A step of a small student
leaves most of a GPU idle, so seeds and tasks share it (sandwiches gain nothing by that, see `docs/results.md`), in as
many processes as the disk has room for, but no more than ``--processes``. ``report`` needs no more of OUT than
seed-*/TASK/comparison/compare.json.

Plan ``same`` is that of ``benchmarks/evidence.py``, in fp32 as there: its cells can be put beside those of a CPU, with
``evidence_report.py --work OUT/seed-*``. Plan ``whole`` has whole tasks, the full grid and longer stages, in whatever
precision the GPU is found to be fastest in.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Collection
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from evidence import PARTS, PLAN, Plan, run, with_targets
from evidence_report import write
from tasks import Cell, Printer, prepare
from transformers import AutoModel, AutoTokenizer

LIMIT = 60e6  # bytes that are carried
CACHE, STAGES = 1.5, 3.0  # GiB of teachers' outputs, which a GPU has soon computed again, and of a seed's stages
ON_DISK: dict[str, Any] = {"teacher_cache": CACHE, "keep_checkpoints": False}
_LONGER = {"mrpc": 600, "stsb": 900, "mnli": 2400, "sst2": 2400, "qnli": 2400, "rte": 450, "cola": 1500}


def _whole(name: str, cell: Cell) -> Cell:
    rows = 20_000 if name == "sst2" else None
    return dataclasses.replace(cell, rows=rows, steps=_LONGER.get(name, 1500), teacher_batch_size=32)


WHOLE = Plan(
    {name: _whole(name, cell) for name, cell in PLAN.tasks.items()},
    assistants=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    targets=(0.9, 0.95, 0.97),
    batch_size=32,
    **ON_DISK,
)
SAME = dataclasses.replace(
    PLAN,
    tasks={name: dataclasses.replace(cell, precision="fp32") for name, cell in PLAN.tasks.items()},
    **ON_DISK,
)
PLANS = {"same": SAME, "whole": WHOLE}


class _TimeUp(Exception):
    """The slice is over; what is finished is on disk."""


class _Slice(Printer):
    """A listener that lets no cell begin after the deadline."""

    def __init__(self, name: str, deadline: float) -> None:
        super().__init__(name)
        self._deadline = deadline

    def cell(self, title: str, number: int, of: int, seconds_left: float | None) -> None:
        """Print which cell begins, or stop."""
        if time.time() > self._deadline:
            raise _TimeUp
        super().cell(title, number, of, seconds_left)


def pack(data_dir: Path, carry: Path) -> None:
    """Put backbone and rows into one folder."""
    from minidisc.demo.assets import backbone_dir

    AutoModel.from_pretrained(backbone_dir(), dtype=torch.float16).save_pretrained(carry / "backbone")
    AutoTokenizer.from_pretrained(backbone_dir()).save_pretrained(carry / "backbone")
    for name in PLAN.tasks:
        folder = Path("conll2003") if name == "conll2003" else Path("glue", name)
        (carry / "data" / folder).mkdir(parents=True, exist_ok=True)
        for file in sorted((data_dir / folder).glob("*.jsonl.gz")):
            if file.name.startswith(("train", "validation.")):
                shutil.copyfile(file, carry / "data" / folder / file.name)
    size = sum(file.stat().st_size for file in carry.rglob("*") if file.is_file())
    print(f"{carry}: {size / 1e6:.1f} MB")
    if size > LIMIT:
        sys.exit(f"{carry} is larger than {LIMIT / 1e6:.0f} MB; leave out tasks.")


def train(plan: Plan, options: argparse.Namespace) -> None:
    """A task's teacher, then each of its seeds in a process of its own, until the slice is over."""
    deadline = time.time() + 60 * options.minutes
    options.work.mkdir(parents=True, exist_ok=True)
    room = int(shutil.disk_usage(options.work).free / ((CACHE + STAGES) * 2**30))
    spawned = multiprocessing.get_context("spawn")  # a forked process cannot use the GPU
    with ProcessPoolExecutor(max(1, min(options.processes, room)), spawned) as pool:
        teachers = {name: pool.submit(_teacher, plan, name, options.work, options.carry) for name in options.tasks}
        running: dict[Future[None], str] = {}
        failed = []
        for name, teacher in teachers.items():
            if teacher.exception():
                failed.append(f"{name}'s teacher: {teacher.exception()!r}")
                continue
            for seed in options.seeds:
                work = options.work / f"seed-{seed}"
                cells = pool.submit(_cells, plan, name, seed, teacher.result(), work, options.parts, deadline)
                running[cells] = f"{name}, seed {seed}"
        failed += [f"{of}: {cells.exception()!r}" for cells, of in running.items() if cells.exception()]
    if failed:
        sys.exit("\n".join(failed))


def _teacher(plan: Plan, name: str, work: Path, carry: Path) -> dict[str, Any]:
    return prepare(name, plan.tasks[name], work, str(carry / "data"), carry / "backbone")


def _cells(
    plan: Plan, name: str, seed: int, shared: dict[str, Any], work: Path, parts: Collection[str], deadline: float
) -> None:
    try:
        run(plan, name, [seed], shared, work, _Slice(f"{name} {seed}", deadline), parts)
    except _TimeUp:
        print(name, seed, "the slice is over; start again to go on", flush=True)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["pack", "run", "report"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--carry", type=Path, default=Path("carry"))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--plan", choices=list(PLANS), default="same")
    parser.add_argument("--tasks", nargs="*", default=list(PLAN.tasks), choices=list(PLAN.tasks))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--parts", nargs="*", default=["trial", "search"], choices=PARTS)
    parser.add_argument("--targets", nargs="*", type=float, help="sparsities of the students, for those of the plan")
    parser.add_argument("--target", type=Path)
    options = parser.parse_args()
    plan = with_targets(PLANS[options.plan], options.targets)
    if options.action == "pack":
        pack(options.data_dir, options.carry)
    elif options.action == "run":
        train(plan, options)
    else:
        command = f"python benchmarks/gpu/evidence.py run --carry carry --work OUT --plan {options.plan}"
        write(plan, sorted(options.work.glob("seed-*")), options.target, command)


if __name__ == "__main__":
    main()
