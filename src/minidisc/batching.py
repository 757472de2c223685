"""Which rows are trained together, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class LengthGroupedOrder(Sampler[int]):
    """Rows of similar length side by side, so that batches need little padding; a new order every epoch.

    Rows are shuffled, cut into pieces of fifty batches, sorted by length within a piece, cut into batches, and the
    batches shuffled. The order depends on (seed, epoch) alone.

    Args:
        lengths: tokens of every row.
        batch_size: rows that are trained together.
        seed: of the shuffling.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self._seed, self._epoch))
        order = random.permutation(len(self._lengths))
        piece = 50 * self._batch_size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), piece):
            rows = order[start : start + piece]
            rows = rows[np.argsort(-self._lengths[rows], kind="stable")]
            batches += [rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)]
        # Only the last batch may be smaller, or the batches would be cut in other places than they are here.
        short = [batch for batch in batches if len(batch) < self._batch_size]
        whole = [batch for batch in batches if len(batch) == self._batch_size]
        for i in [*random.permutation(len(whole))]:
            yield from whole[i].tolist()
        for batch in short:
            yield from batch.tolist()
