"""The rows of a run: which train, calibrate, select and report, and their tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from minidisc.config import CompressSettings
from minidisc.errors import UserError
from minidisc.results import REST_OF
from minidisc.tasks import MINIMUM_TRAIN_ROWS, Cut, Task, TaskData, encode_for, hold_out

SELECTION_MAXIMUM = 2000


class Rows(Mapping[str, datasets.Dataset]):
    """Encoded rows by their use: ``train``, ``calibration``, ``selection`` and ``validation``.

    Args:
        settings: say how they are split.
        data: the training and validation rows.
        note: is told where the validation rows have to serve for more than the final figures.
        draw: seed of which validation rows these are; the settings' if not given.

    Attributes:
        tokens_fingerprint: hash of the rows' tokens, once they are encoded.
        cuts: what is cut off the rows of each file or split, once they are encoded.
    """

    tokens_fingerprint: str
    cuts: dict[str, Cut]

    def __init__(
        self, settings: CompressSettings, data: TaskData, note: Callable[[str], None], draw: int | None = None
    ) -> None:
        train, validation = data.train, data.validation
        assert train is not None and validation is not None
        sources, of_training = dict(data.splits), ["train"]
        if settings.select_on == "validation":
            selection, sources["selection"] = validation, data.splits["validation"]
        elif labelled := sum(has_labels(train)):
            fraction = settings.selection_fraction or _selection_fraction(labelled)
            train, selection = hold_out(train, fraction, SELECTION_MAXIMUM, settings.seed)
            if len(train) < MINIMUM_TRAIN_ROWS:
                raise UserError(
                    f"too few training rows: {len(train)} are left once {len(selection)} are kept for selection; at "
                    f"least {MINIMUM_TRAIN_ROWS} are needed; lower --selection-fraction."
                )
            of_training.append("selection")
            sources["selection"] = f"held out of {data.splits['train']}"
        else:
            draw = settings.seed if draw is None else draw
            validation, selection = hold_out(validation, 0.5, SELECTION_MAXIMUM, draw, of_training=False)
            sources["selection"] = f"held out of {data.splits['validation']}"
            sources["validation"] = REST_OF + data.splits["validation"]
            note(
                f"the training rows have no labels: {len(selection)} validation rows serve for calibration and "
                f"selection, the other {len(validation)} for the final figures."
            )
        self._settings = settings
        self._texts = {"train": train, "selection": selection, "validation": validation}
        self._sources, self._of_training, self._splits = sources, of_training, data.splits
        self._encoded: dict[str, datasets.Dataset] = {}

    def encode(self, task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
        """Turn texts into tokens, and draw the rows that calibrate; again with another tokenizer."""
        settings, texts = self._settings, self._texts
        cuts = {split: Cut() for split in self._splits}
        counted = {use: cuts["train" if use in self._of_training else "validation"] for use in texts}
        if texts["selection"] is texts["validation"]:
            del counted["selection"]
        self._encoded = {
            use: encode_for(task, rows, tokenizer, settings.max_length, counted.get(use))
            for use, rows in texts.items()
        }
        self.cuts = {self._splits[split]: cut for split, cut in cuts.items()}
        self.tokens_fingerprint = _fingerprint(self.values())
        train, own = self["train"], settings.importance_on == "teacher"
        usable = [index for index, known in enumerate(has_labels(train)) if known or own]
        source = train.select(usable) if usable else self["selection"]
        self._sources["calibration"] = self._sources["train" if usable else "selection"]
        drawn = np.random.default_rng((settings.seed, 1)).permutation(len(source))[: settings.calibration_rows]
        self._encoded["calibration"] = source.select(sorted(drawn.tolist()))

    def __getitem__(self, use: str) -> datasets.Dataset:
        return self._encoded[use]

    def __iter__(self) -> Iterator[str]:
        return iter(self._encoded)

    def __len__(self) -> int:
        return len(self._encoded)

    def readable(self, use: str) -> list[Any]:
        """The rows before they became tokens: a text, both texts of a pair, or a list of words."""
        texts = self._texts[use].to_dict()
        if "words" in texts:
            return list(texts["words"])
        pairs = zip(*(texts[name] for name in ("text_a", "text_b") if name in texts), strict=True)
        return [" | ".join(pair) for pair in pairs]

    def training_pieces(self) -> np.ndarray:
        """Ids of all pieces of the training data, one after another."""
        rows = chain.from_iterable(self[use]["input_ids"] for use in self._of_training)
        return np.fromiter(chain.from_iterable(rows), dtype=np.int64)

    def counts(self) -> dict[str, dict[str, Any]]:
        """Source and number of the rows of each use."""
        return {use: {"source": self._sources[use], "count": len(rows)} for use, rows in self.items()}


def has_labels(rows: datasets.Dataset) -> list[bool]:
    """Of each row, whether it has a label; a document's are its own words."""
    if "label" not in rows.column_names:
        return [True] * len(rows)
    # Not the whole column: a text's labels are as many as its tokens.
    slices = rows.select_columns("label").iter(1000)
    return [label is not None for part in slices for label in part["label"]]


def _fingerprint(tables: Iterable[datasets.Dataset]) -> str:
    """A short hash of the tokens of encoded rows."""
    digest = hashlib.sha256()
    for rows in tables:
        digest.update(np.asarray(rows["length"][:]).tobytes())
        # Not as lists of Python, which would take minutes for many rows.
        for chunk in rows.data.column("input_ids").chunks:
            digest.update(chunk.flatten().to_numpy().astype(np.int64).tobytes())
    return digest.hexdigest()[:16]


def _selection_fraction(labelled_rows: int) -> float:
    # Candidates differ by a few points; a metric on fewer than about 500 rows cannot tell them apart.
    return max(0.1, min(0.25, 500 / labelled_rows))
