"""Keep part of the training rows for selection."""

from __future__ import annotations

from collections import Counter

import datasets
import numpy as np

from minidisc.errors import UserError

MINIMUM_HELD_ROWS = 8


def hold_out(
    rows: datasets.Dataset, fraction: float, maximum: int, seed: int, of_training: bool = True
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Split rows in two.

    Only labelled rows whose texts occur once are held out, so that no text stands on both sides. Classes of whole
    rows keep their shares; each has at least one row on either side where it has enough of them.

    Args:
        rows: as `minidisc.tasks.loading.TaskData` has them.
        fraction: part of the labelled rows to hold out.
        maximum: hold out at most so many.
        seed: seed of the draw.
        of_training: whether they are training rows, for the error message.

    Returns:
        The rest, and the rows held out; both in the order of ``rows``.

    Raises:
        UserError: if fewer than 8 rows would be held out.
    """
    columns = rows.to_dict()
    if "words" in columns:
        texts = [tuple(words) for words in columns["words"]]
    else:
        texts = list(zip(*(columns[name] for name in ("text_a", "text_b") if name in columns), strict=True))
    copies = Counter(texts)
    # The label of a document is itself.
    labels = columns.get("label", texts)
    labelled = [row for row, label in enumerate(labels) if label is not None]
    single = [row for row in labelled if copies[texts[row]] == 1]
    size = min(round(fraction * len(labelled)), maximum, len(single))
    if size < MINIMUM_HELD_ROWS:
        repeated, kind = len(labelled) - len(single), "labelled training" if of_training else "validation"
        scarce = f"since {repeated} stand there more than once, " if size == len(single) and repeated else ""
        more = "raise --selection-fraction" if of_training and not scarce else "give more of them"
        raise UserError(
            f"only {size} of {len(labelled)} {kind} rows can be kept for selection, {scarce}at least "
            f"{MINIMUM_HELD_ROWS} are needed; {more}, or use --select-on validation."
        )
    generator = np.random.default_rng(seed)
    if rows.features.get("label") == datasets.Value("int64"):
        held = _draw_stratified(generator, np.array([labels[row] for row in labelled]), labelled, set(single), size)
    else:
        held = generator.choice(single, size=size, replace=False).tolist()
    chosen = set(held)
    return _take(rows, [row for row in range(len(rows)) if row not in chosen]), _take(rows, sorted(chosen))


def _draw_stratified(
    generator: np.random.Generator, labels: np.ndarray, labelled: list[int], single: set[int], size: int
) -> list[int]:
    classes, totals = np.unique(labels, return_counts=True)
    # Sorted once, not looked through for every class, of which there may be thousands.
    members = np.split(np.asarray(labelled)[np.argsort(labels, kind="stable")], np.cumsum(totals)[:-1])
    candidates = [[row for row in rows.tolist() if row in single] for rows in members]
    limits = np.minimum([len(rows) for rows in candidates], totals - 1)
    counts = np.zeros(len(classes), dtype=int)
    # One row a class first, largest class first; then always to the class that lacks most of its share.
    for position in np.argsort(-totals, kind="stable")[:size]:
        counts[position] = min(1, limits[position])
    shares = size * totals / totals.sum()
    while counts.sum() < min(size, limits.sum()):
        counts[np.where(counts < limits, shares - counts, -np.inf).argmax()] += 1
    return [
        row
        for rows, count in zip(candidates, counts, strict=True)
        for row in generator.choice(rows, size=count, replace=False).tolist()
    ]


def _take(rows: datasets.Dataset, indices: list[int]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(rows[indices], features=rows.features)
