"""A frozen teacher's outputs on every training row: computed once, and read from a file from then on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load_file, save_file
from torch import Tensor

from minidisc.files import new_folder, read_json, write_json
from minidisc.losses import WITH_RELATIONS, WITH_STATES, Outputs, distilled_layers
from minidisc.measure import Cost, Shape, measured
from minidisc.prediction import Collate, batches_by_length, model_inputs

_HALF = 2  # bytes of a number in half precision


def stored_bytes(lengths: Sequence[int], shape: Shape, loss: str) -> int:
    """Bytes that a teacher's outputs on rows of these lengths take, at the most."""
    states = len(distilled_layers(shape.depth)) * shape.hidden if loss in WITH_STATES else 0
    relations = shape.heads * (shape.head_size + 2 * shape.key_size) if loss in WITH_RELATIONS else 0
    return int(np.sum(lengths)) * (states + relations) * _HALF


def flops_over(lengths: ArrayLike, batch_size: int, flops: Callable[[int, int], float]) -> float:
    """FLOPs of one pass over all rows, batched by length; ``flops(rows, length)`` are a batch's."""
    longest_first = np.sort(np.asarray(lengths))[::-1]
    batches = [longest_first[i : i + batch_size] for i in range(0, len(longest_first), batch_size)]
    return sum(flops(len(batch), int(batch[0])) for batch in batches)


class OutputStore:
    """One network's outputs on every training row, in a folder of its own.

    Hidden states and relations are kept in half precision (in full, where they are beyond its range), logits in full.

    Args:
        folder: the store's; those of other stores lie beside it.
        budget: bytes that all of them together may take; those not used for longest make room.
    """

    def __init__(self, folder: Path, budget: float) -> None:
        self._folder, self._budget = folder, budget

    @property
    def filled(self) -> bool:
        """Whether the outputs are there."""
        return self._layout.is_file()

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
        cost = Cost(flops=flops_over(rows["length"], batch_size, flops))
        with measured(cost), torch.no_grad():
            for dtype in (np.float16, np.float32):
                batches = batches_by_length(rows, collate, batch_size)
                made = (
                    (positions, inputs["attention_mask"], outputs_of(inputs))
                    for positions, batch in batches
                    for inputs in [model_inputs(batch, device)]
                )
                with suppress(OverflowError):
                    self._write(made, rows["length"], np.dtype(dtype))
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
        with new_folder(self._folder) as folder, (folder / "states").open("wb") as file:
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
                if not layout:
                    widths = [[t.shape[-1] for t in group] for group in groups]
                    layout = {"dtype": dtype.name, "widths": widths, "of_tokens": outputs.logits.dim() == 3}
                    self._make_room(int(starts[-1]) * states[0].nbytes)
                values = outputs.logits.float().cpu()
                ends = np.cumsum(np.asarray(lengths)[positions])
                for i, (row, own) in enumerate(zip(positions, np.split(states, ends[:-1]), strict=True)):
                    file.seek(int(starts[row]) * states[0].nbytes)
                    file.write(own.tobytes())
                    logits[row] = values[i][tokens[i]] if layout["of_tokens"] else values[i : i + 1]
            save_file({"logits": torch.cat([logits[row] for row in range(len(logits))])}, folder / "logits")
            write_json(folder / "layout.json", layout)

    def _make_room(self, needed: int) -> None:
        others = [folder for folder in self._folder.parent.iterdir() if (folder / "layout.json").is_file()]
        sizes = {folder: (folder / "states").stat().st_size for folder in others}
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
        layout = read_json(folder / "layout.json")
        self._groups: list[list[int]] = layout["widths"]
        self._dtype = np.dtype(layout["dtype"])
        self._of_tokens = layout["of_tokens"]
        self._logits = load_file(folder / "logits")["logits"]
        self._starts = [0, *np.cumsum(lengths).tolist()]
        # Read, not mapped: the pages of a mapped file would count as this process's memory.
        self._file = (folder / "states").open("rb")

    def __call__(self, rows: Sequence[int], mask: Tensor) -> Outputs:
        """The outputs on a batch, on the mask's device.

        Args:
            rows: positions of the batch's rows.
            mask: (rows, tokens), 1 for tokens and 0 for padding; there the outputs are 0.
        """
        widths = [width for group in self._groups for width in group]
        size = sum(widths) * self._dtype.itemsize
        blocks = []
        for row in rows:
            self._file.seek(self._starts[row] * size)
            blocks.append(self._file.read((self._starts[row + 1] - self._starts[row]) * size))
        tokens = sum(self._starts[row + 1] - self._starts[row] for row in rows)
        states = np.frombuffer(bytearray().join(blocks), self._dtype).reshape(tokens, sum(widths))
        tensors = _padded(torch.from_numpy(states), mask).split(widths, -1)
        logits = (
            _padded(torch.cat([self._logits[self._starts[row] : self._starts[row + 1]] for row in rows]), mask)
            if self._of_tokens
            else self._logits[list(rows)].to(mask.device)
        )
        count = len(self._groups[0])
        return Outputs(logits, tensors[:count], tensors[count:])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _padded(tokens: Tensor, mask: Tensor) -> Tensor:
    """(tokens of all rows, width) as (rows, tokens, width) in full precision, 0 where ``mask`` is."""
    padded = torch.zeros(*mask.shape, tokens.shape[-1], device=mask.device)
    padded[mask.bool()] = tokens.to(mask.device).float()
    return padded
