"""What a run, a comparison or a fine-tuning takes of the disk, at the worst."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from minidisc.config import CompressSettings, TrainingSettings
from minidisc.errors import UserError
from minidisc.footprint import MOMENTS
from minidisc.measure import Shape
from minidisc.subnetworks import SubnetworkSpec, candidate_sparsities
from minidisc.teaching import stored_bytes

_BYTES = 4  # of an fp32 number


def disk_needed(
    shape: Shape, settings: CompressSettings, stages: Sequence[Sequence[SubnetworkSpec]], lengths: Sequence[int]
) -> int:
    """Bytes on disk while a run is at work, at the worst.

    Of the largest network that is trained, the old and the new checkpoint, each of weights and moments; of every
    stage a snapshot per candidate, each of which may be kept in ``RUN/sizes`` too, its last checkpoint, if those are
    kept, and the network that it hands over; and the outputs of all that may teach.

    Args:
        shape: the teacher's.
        settings: of the run, with a target.
        stages: the sub-networks of every stage (see `minidisc.schedules.planned`).
        lengths: tokens of the rows that teachers' outputs are stored for, if they are.
    """
    widest = [_widest(shape, specs) for specs in stages]
    numbers = _checkpoints(settings, max(widest)) + sum(_snapshots(shape, specs) for specs in stages)
    if settings.keep_sizes:
        numbers += sum(shape.sizes(spec).all for specs in stages for spec in specs)
    if settings.keep_checkpoints:
        numbers += (1 + MOMENTS[settings.optimizer]) * (sum(widest) - max(widest))
    # Of an exhaustive search's trials the best one alone hands something over.
    numbers += sum(widest[:2] if settings.schedule == "maxidisc" else widest)
    return numbers * _BYTES + _outputs(shape, settings, lengths)


def disk_of_cells(
    shape: Shape,
    cells: Sequence[tuple[CompressSettings, Sequence[tuple[Hashable, Sequence[SubnetworkSpec]]]]],
    lengths: Callable[[CompressSettings], Sequence[int]],
) -> int:
    """Bytes on disk while a comparison is at work, at the worst.

    Of the largest network that is trained two checkpoints, as in `disk_needed`; of every stage a snapshot per
    candidate; and the outputs of all that may teach.

    Args:
        shape: the teacher's.
        cells: of each its settings, and its stages with what tells them apart; equal ones are trained once.
        lengths: see `disk_needed`, by a cell's settings.
    """
    stages = {key: specs for _, own in cells for key, specs in own}
    checkpoints = max(_checkpoints(settings, _widest(shape, specs)) for settings, own in cells for _, specs in own)
    outputs = max(_outputs(shape, settings, lengths(settings), len(cells)) for settings, _ in cells)
    return (checkpoints + sum(_snapshots(shape, specs) for specs in stages.values())) * _BYTES + outputs


def disk_of_training(settings: TrainingSettings, numbers: int) -> int:
    """Bytes on disk while one network of so many numbers is trained, at the worst: two checkpoints and a snapshot."""
    return (_checkpoints(settings, numbers) + numbers) * _BYTES


def _widest(shape: Shape, specs: Sequence[SubnetworkSpec]) -> int:
    return max(shape.sizes(spec).all for spec in specs)


def _checkpoints(settings: TrainingSettings, numbers: int) -> int:
    """The old one and the new one, of a network of so many numbers."""
    return 2 * (1 + MOMENTS[settings.optimizer]) * numbers


def _snapshots(shape: Shape, specs: Sequence[SubnetworkSpec]) -> int:
    """One for each candidate, of the whole network that they share."""
    return len(specs) * _widest(shape, specs)


def _outputs(shape: Shape, settings: CompressSettings, lengths: Sequence[int], runs: int = 1) -> int:
    """Bytes that the outputs of teachers may take, of so many runs that share a folder."""
    teachers = {
        "minidisc": settings.stages,
        "maxidisc": len(candidate_sparsities(settings.target_sparsity, settings.grid)),
        "chain": 1 + len(settings.assistants or ()),
    }.get(settings.schedule, 1)
    own = stored_bytes(lengths, shape, settings.effective_loss, settings.teacher_top_k or 0)
    return min(runs * teachers * own, int(settings.teacher_cache * 2**30))


def check_disk(folder: Path, needed: int, written: Path) -> None:
    """Refuse a run in ``folder`` that the disk has no room for; what is in ``written`` is a part of what it needs."""
    existing = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    # Snapshots are second names of checkpoints' files.
    held = {stat.st_ino: stat.st_size for file in written.rglob("*") if file.is_file() for stat in [file.stat()]}
    needed -= sum(held.values())
    if free < needed:
        raise UserError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free, but the run needs about {needed / 1e9:.1f} GB; "
            "free some, or give --output-dir on another disk."
        )
