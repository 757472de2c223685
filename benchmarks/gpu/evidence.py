"""The evidence of ``benchmarks/evidence.py`` on one GPU without a network: whole tasks, the full grid, five seeds.

    python benchmarks/gpu/evidence.py pack --data-dir DIR --carry carry
    python benchmarks/gpu/evidence.py run --carry carry --work OUT --minutes 7.5 [--tasks mrpc …]
    python benchmarks/gpu/evidence.py report --work OUT --target results/gpu_evidence

``pack`` puts what is needed into one folder of under 60 MB: the backbone in half precision and the tasks' rows.
``run`` begins no cell after ``--minutes``; started again on the same folder it goes on. ``report`` takes the tasks
that are complete and needs no more of them than OUT/TASK/comparison/compare.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from evidence import PLAN, Plan, run
from evidence_report import write
from tasks import Cell, Printer, prepare
from transformers import AutoModel, AutoTokenizer

LIMIT = 60e6  # bytes that are carried
SEEDS = (0, 1, 2, 3, 4)
_LONGER = {"mrpc": 600, "stsb": 900, "mnli": 2400, "sst2": 2400, "qnli": 2400, "rte": 450, "cola": 1500}


def _whole(name: str, cell: Cell) -> Cell:
    rows = 20_000 if name == "sst2" else None
    return dataclasses.replace(cell, rows=rows, steps=_LONGER.get(name, 1500), teacher_batch_size=32)


GPU_PLAN = Plan(
    {name: _whole(name, cell) for name, cell in PLAN.tasks.items()},
    assistants=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    targets=(0.9, 0.95, 0.97),
    batch_size=32,
)


class _TimeUp(Exception):
    """The slice is over; what is finished is on disk."""


class _Slice(Printer):
    """A listener that lets no cell begin after the deadline."""

    def __init__(self, name: str, deadline: float) -> None:
        super().__init__(name)
        self._deadline = deadline

    def cell(self, title: str, number: int, of: int, seconds_left: float | None) -> None:
        """Print which cell begins, or stop."""
        if time.monotonic() > self._deadline:
            raise _TimeUp
        super().cell(title, number, of, seconds_left)


def pack(data_dir: Path, carry: Path) -> None:
    """Put backbone and rows into one folder."""
    from minidisc.demo.assets import backbone_dir

    AutoModel.from_pretrained(backbone_dir(), dtype=torch.float16).save_pretrained(carry / "backbone")
    AutoTokenizer.from_pretrained(backbone_dir()).save_pretrained(carry / "backbone")
    for name in GPU_PLAN.tasks:
        folder = Path("conll2003") if name == "conll2003" else Path("glue", name)
        (carry / "data" / folder).mkdir(parents=True, exist_ok=True)
        for file in sorted((data_dir / folder).glob("*.jsonl.gz")):
            if file.name.startswith(("train", "validation.")):
                shutil.copyfile(file, carry / "data" / folder / file.name)
    size = sum(file.stat().st_size for file in carry.rglob("*") if file.is_file())
    print(f"{carry}: {size / 1e6:.1f} MB")
    if size > LIMIT:
        sys.exit(f"{carry} is larger than {LIMIT / 1e6:.0f} MB; leave out tasks.")


def train(options: argparse.Namespace) -> None:
    """Cell after cell, until the slice is over."""
    deadline = time.monotonic() + 60 * options.minutes
    try:
        for name in options.tasks:
            listener: Any = _Slice(name, deadline)
            data, backbone = str(options.carry / "data"), options.carry / "backbone"
            shared = prepare(name, GPU_PLAN.tasks[name], options.work, data, backbone)
            run(GPU_PLAN, name, options.seeds, shared, options.work, listener)
    except _TimeUp:
        print("the slice is over; start again to go on", flush=True)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["pack", "run", "report"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--carry", type=Path, default=Path("carry"))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--tasks", nargs="*", default=list(GPU_PLAN.tasks), choices=list(GPU_PLAN.tasks))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--target", type=Path)
    options = parser.parse_args()
    if options.action == "pack":
        pack(options.data_dir, options.carry)
    elif options.action == "run":
        train(options)
    else:
        write(GPU_PLAN, options.work, options.target, "python benchmarks/gpu/evidence.py run --carry carry --work OUT")


if __name__ == "__main__":
    main()
