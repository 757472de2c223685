"""A frozen teacher's outputs on every training row: computed once, and read from a file from then on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from minidisc.devices import moved
from minidisc.files import damage_named, new_folder, read_json, write_json
from minidisc.losses import WITH_RELATIONS, WITH_STATES, LargestLogits, Outputs, distilled_layers
from minidisc.measure import Shape, measured
from minidisc.prediction import Collate, batches_by_length, flops_over, model_inputs
from minidisc.results import Cost

_CPU = torch.device("cpu")
_HALF = 2  # bytes of a number in half precision
_LOGIT = 8  # bytes of a logit and its place in the vocabulary
_REST = 4  # bytes of what the others weigh together


def stored_bytes(lengths: Sequence[int], shape: Shape, loss: str, top_k: int = 0) -> int:
    """Bytes that a teacher's outputs on rows of these lengths take, at the most.

    The logits of a whole row or of a few classes are so few that they are not counted; ``top_k`` of a token are.
    """
    states = len(distilled_layers(shape.depth, shape.decoder_depth)) * shape.hidden if loss in WITH_STATES else 0
    relations = shape.heads * (shape.head_size + 2 * shape.key_size) if loss in WITH_RELATIONS else 0
    return int(np.sum(lengths)) * ((states + relations) * _HALF + (top_k * _LOGIT + _REST if top_k else 0))


def keep_largest(logits: Tensor, count: int) -> LargestLogits:
    """The ``count`` largest logits on the last axis (all but one at the most), and what the others weigh together."""
    values, places = logits.topk(min(count, logits.shape[-1] - 1), -1)
    return LargestLogits(values, places, logits.scatter(-1, places, -torch.inf).logsumexp(-1, keepdim=True))


class OutputStore:
    """One network's outputs on every training row, in a folder of its own.

    Hidden states and relations are kept in half precision (in full, where they are beyond its range), logits in full,
    or only the largest of every token and the weight of the others.

    Args:
        folder: the store's; those of other stores lie beside it.
        budget: bytes that all of them together may take; those not used for longest make room.
        top_k: how many of a token's logits are kept; all if not given.
        begun: called before outputs are computed.
    """

    def __init__(
        self, folder: Path, budget: float, top_k: int | None = None, begun: Callable[[], None] = lambda: None
    ) -> None:
        self._folder, self._budget, self._top_k, self._begun = folder, budget, top_k, begun

    @property
    def filled(self) -> bool:
        """Whether the outputs are there."""
        # The cost is written last; it stays when the outputs have made room for others.
        return self._layout.is_file() and self._cost_file.is_file()

    @property
    def cost(self) -> Cost:
        """What it took to compute the outputs, also when they have made room for others since."""
        return Cost(**read_json(self._cost_file))

    def fill(
        self,
        outputs_of: Callable[[dict[str, Tensor]], Outputs],
        rows: Any,
        collate: Collate,
        batch_size: int,
        device: torch.device,
        flops: Callable[[int, int], float],
    ) -> None:
        """Compute the outputs, unless they are there.

        Args:
            outputs_of: runs the network on a batch.
            rows: encoded rows.
            collate: pads a list of rows to tensors.
            batch_size: rows in a batch.
            device: of the network.
            flops: of the network on a batch, from its rows and their length.
        """
        if self.filled:
            return
        self._begun()
        cost = Cost(flops=flops_over(rows["length"][:], batch_size, flops))
        with measured(cost), torch.no_grad():
            for dtype in (np.float16, np.float32):
                batches = batches_by_length(rows, collate, batch_size)
                made = (
                    (positions, inputs["attention_mask"], outputs_of(inputs))
                    for positions, batch in batches
                    for inputs in [model_inputs(batch, device)]
                )
                with suppress(OverflowError):
                    self._write(made, rows["length"][:], np.dtype(dtype))
                    break
        # The first time counts, as if there had always been room.
        if not self._cost_file.is_file():
            write_json(self._cost_file, asdict(cost))

    def read(self, lengths: Sequence[int]) -> StoredOutputs:
        """The outputs on rows of these lengths, once `fill` has computed them."""
        os.utime(self._folder)
        return StoredOutputs(self._folder, lengths)

    @property
    def _layout(self) -> Path:
        return self._folder / "layout.json"

    @property
    def _cost_file(self) -> Path:
        return self._folder.with_suffix(".json")

    def _write(self, made: Any, lengths: Sequence[int], dtype: np.dtype) -> None:
        """Write a network's outputs batch by batch; OverflowError if a state is beyond the range of ``dtype``."""
        starts = np.concatenate([[0], np.cumsum(lengths)])
        logits: dict[int, Tensor] = {}
        layout: dict[str, Any] = {}
        with (
            new_folder(self._folder, replaces=True) as folder,
            (folder / "states").open("wb") as file,
            (folder / "largest").open("wb") as largest,
        ):
            for positions, mask, outputs in made:
                tokens = mask.bool().cpu()
                groups = outputs.states, outputs.relations
                none = torch.empty(*tokens.shape, 0)
                parts = [none, *(t.float().cpu() for group in groups for t in group)]
                states = torch.cat(parts, -1)[tokens].numpy()
                with np.errstate(over="ignore"):
                    states = states.astype(dtype)
                if dtype == np.float16 and not np.isfinite(states).all():
                    raise OverflowError
                values = outputs.logits.float().cpu()
                kept = _largest(values[tokens], self._top_k) if self._top_k else np.empty((len(states), 0), np.float32)
                if not layout:
                    layout = {
                        "dtype": dtype.name,
                        "widths": [[t.shape[-1] for t in group] for group in groups],
                        "of_tokens": outputs.logits.dim() == 3,
                        "kept": kept.shape[1] // 2,
                    }
                    self._make_room(int(starts[-1]) * (states[0].nbytes + kept[0].nbytes))
                _write_rows(file, states, positions, starts)
                _write_rows(largest, kept, positions, starts)
                for i, row in enumerate(positions):
                    if not self._top_k:
                        logits[row] = values[i][tokens[i]] if layout["of_tokens"] else values[i : i + 1]
            if logits:
                save_file({"logits": torch.cat([logits[row] for row in range(len(logits))])}, folder / "logits")
            write_json(folder / "layout.json", layout)

    def _make_room(self, needed: int) -> None:
        others = [folder for folder in self._folder.parent.iterdir() if (folder / "layout.json").is_file()]
        sizes = {folder: sum((folder / name).stat().st_size for name in _FILES) for folder in others}
        for folder in sorted(others, key=lambda folder: folder.stat().st_mtime):
            if sum(sizes.values()) + needed > self._budget:
                del sizes[folder]
                shutil.rmtree(folder)


class StoredOutputs:
    """Reads what an `OutputStore` has written.

    Args:
        folder: the store's.
        lengths: tokens of every row.
    """

    def __init__(self, folder: Path, lengths: Sequence[int]) -> None:
        self._folder = folder
        layout = read_json(folder / "layout.json", folder)
        self._groups: list[list[int]] = layout["widths"]
        self._dtype = np.dtype(layout["dtype"])
        self._of_tokens = layout["of_tokens"]
        self._kept = layout["kept"]
        with damage_named(folder / "logits", folder):
            self._logits = None if self._kept else load_file(folder / "logits")["logits"]
        self._starts = [0, *np.cumsum(lengths).tolist()]
        # Read, not mapped: the pages of a mapped file would count as this process's memory.
        self._files = [(folder / name).open("rb") for name in _FILES]

    def __call__(self, rows: Sequence[int], mask: Tensor, device: torch.device = _CPU) -> Outputs:
        """The outputs on a batch.

        Args:
            rows: positions of the batch's rows.
            mask: (rows, tokens), on the CPU, 1 for tokens and 0 for padding; there the outputs are 0.
            device: where they are put.
        """
        place = partial(_placed, mask=mask, device=device)
        widths = [width for group in self._groups for width in group]
        states, largest = self._files
        tensors = place(self._read(states, rows, sum(widths), self._dtype)).split(widths, -1)
        count = len(self._groups[0])
        groups = tensors[:count], tensors[count:]
        if self._logits is None:
            values, places, rest = place(self._read(largest, rows, 2 * self._kept + 1, np.dtype(np.float32))).split(
                (self._kept, self._kept, 1), -1
            )
            kept = LargestLogits(values, places.contiguous().view(torch.int32).long(), rest)
            return Outputs(torch.empty(0), *groups, kept)
        if self._of_tokens:
            logits = place(self._logits[self._starts[row] : self._starts[row + 1]] for row in rows)
        else:
            logits = moved(self._logits[list(rows)], device)
        return Outputs(logits, *groups)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _read(self, file: Any, rows: Sequence[int], width: int, dtype: np.dtype) -> Iterator[Tensor]:
        """What a file holds of the tokens of each row, (tokens, width); the next one takes its place in memory."""
        lengths = [self._starts[row + 1] - self._starts[row] for row in rows]
        memory = np.empty((max(lengths), width), dtype)
        for row, length in zip(rows, lengths, strict=True):
            file.seek(self._starts[row] * width * dtype.itemsize)
            own = memory[:length]
            with damage_named(Path(file.name), self._folder):
                if file.readinto(own) != own.nbytes:
                    raise EOFError
            yield torch.from_numpy(own)


_FILES = ("states", "largest")


def _largest(logits: Tensor, count: int) -> np.ndarray:
    """(tokens, 2 · count + 1): the largest logits, their places, whose bytes are integers, and the others' weight."""
    largest = keep_largest(logits, count)
    return torch.cat([largest.values, largest.places.int().view(torch.float32), largest.rest], -1).numpy()


def _write_rows(file: Any, tokens: np.ndarray, positions: Sequence[int], starts: np.ndarray) -> None:
    """Write what is known of the tokens of some rows, one row behind another, where each belongs in a file."""
    ends = np.cumsum([starts[row + 1] - starts[row] for row in positions])
    for row, own in zip(positions, np.split(tokens, ends[:-1]), strict=True):
        file.seek(int(starts[row]) * tokens[0].nbytes)
        file.write(own.tobytes())


def _placed(rows: Iterable[Tensor], mask: Tensor, device: torch.device) -> Tensor:
    """What is known of rows' tokens, each (tokens, width), as (rows, tokens, width) in full precision on a device.

    It stands where a row's mask begins to be 1; elsewhere are zeros.
    """
    batch: Tensor | None = None
    for i, (row, start) in enumerate(zip(rows, mask.argmax(1).tolist(), strict=True)):
        if batch is None:
            # A GPU is sent what there is, and makes full precision of it itself.
            dtype = torch.float32 if device.type == "cpu" else row.dtype
            batch = torch.empty(*mask.shape, row.shape[-1], dtype=dtype)
        end = start + len(row)
        batch[i, :start], batch[i, start:end], batch[i, end:] = 0, row, 0
    assert batch is not None
    return moved(batch, device).float()
