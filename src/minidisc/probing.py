"""What a few passes of throw-away networks take: seconds, and bytes that are kept for the backward pass.

Every layer costs what the others do, so that a few of them say what a deep network takes. What comes behind them, such
as the choice among a vocabulary, is not a layer's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minidisc.architectures import Architecture
from minidisc.checkpointing import checkpointed
from minidisc.extraction import extract
from minidisc.importance import compute_importance
from minidisc.layer_dropping import is_droppable, with_layers
from minidisc.layers import embedding_modules, ffns_of
from minidisc.losses import LOSSES, WITH_RELATIONS, WITH_STATES, Outputs, Truth, distilled_layers
from minidisc.measure import Shape
from minidisc.memory import release_memory
from minidisc.nested import NestedNetwork
from minidisc.outputs import OutputReader
from minidisc.subnetworks import SubnetworkSpec, even_scores, make_spec

Inputs = dict[str, Tensor]

PARAMETERS = 32e6
"""Prunable parameters that a throw-away network has at the most, but for two layers that it has in any case."""


@dataclass(frozen=True)
class Probe:
    """What the whole network will take; times are arrays of wall and processor seconds.

    Attributes:
        forward: a teacher's forward pass over a row, with its outputs kept as a loss wants them.
        importance: a row's part in importance.
        sparsities: those that were tried, ascending.
        train: for each of them, its part of a step.
        evaluate: for each of them, a forward pass over a row.
        update: the optimiser's, per trained parameter.
        importance_bytes: what importance keeps of a row for its backward pass.
        train_bytes: what the largest sub-network keeps of a row for its own.
    """

    forward: np.ndarray
    importance: np.ndarray
    sparsities: list[float]
    train: list[np.ndarray]
    evaluate: list[np.ndarray]
    update: np.ndarray
    importance_bytes: float
    train_bytes: float

    def at(self, values: list[np.ndarray], sparsity: float) -> np.ndarray:
        """``train`` or ``evaluate`` at any sparsity."""
        return np.array([np.interp(sparsity, self.sparsities, column) for column in np.transpose(values)])


@torch.enable_grad()
def probe(
    teacher: Any,
    architecture: Architecture,
    sparsities: Sequence[float],
    batches: Sequence[Inputs],
    longest: Inputs,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    settings: ProbeSettings,
) -> Probe:
    """Run some layers of ``teacher``, and sub-networks of them.

    Args:
        teacher: full-width; not changed.
        architecture: its family.
        sparsities: of the sub-networks, ascending; as few as tell what those between take.
        batches: inputs on the teacher's device, of the sizes that those of steps have.
        longest: two of the longest rows, likewise.
        optimizer: makes what will train.
        settings: of the run.
    """
    whole = Shape.of(teacher, architecture)
    networks = _Networks(teacher, architecture, sparsities, settings)
    length = batches[len(batches) // 2]["input_ids"].shape[1]
    scales = [networks.scale(spec, length) for spec in networks.specs]
    scale = networks.scale(networks.shape.full(), length)
    forward, importance, update = _Stopwatch(), _Stopwatch(), _Stopwatch()
    train, evaluate = [_Stopwatch() for _ in sparsities], [_Stopwatch() for _ in sparsities]
    # Whatever runs first takes longer, and does not count.
    for inputs in (batches[0], *batches):
        with forward.lap():
            targets = networks.targets(inputs)
        if not importance.laps or inputs is batches[len(batches) // 2]:
            with importance.lap():
                networks.importance(inputs)
        for i, (training, evaluation) in enumerate(zip(train, evaluate, strict=True)):
            with training.lap():
                networks.train(i, inputs, targets)
            with evaluation.lap():
                networks.evaluate(i, inputs)
    trained = [p for p in networks.student.parameters() if p.grad is not None]
    stepping = optimizer(trained)
    for _ in range(3):
        with update.lap():
            nn.utils.clip_grad_norm_(trained, 1e9)
            stepping.step()
    kept = []
    for inside, behind in networks.kept_bytes(longest):
        one_layer = inside / networks.shape.layers
        inputs_of_layers = (whole.depth + whole.decoder_depth) * longest["input_ids"].shape[1] * whole.hidden * 4
        # With checkpointing, all layers' inputs and the inside of the one that runs again; and its gradients.
        layers = inputs_of_layers + one_layer if settings.gradient_checkpointing else whole.layers * one_layer
        kept.append(layers + one_layer + behind)
    rows = len(batches[0]["input_ids"])
    networks.close()
    release_memory()
    return Probe(
        forward=scale * forward.mean() / rows,
        importance=scale * importance.mean() / rows,
        sparsities=list(sparsities),
        train=[own * each.mean() for own, each in zip(scales, train, strict=True)],
        evaluate=[own * each.mean() / rows for own, each in zip(scales, evaluate, strict=True)],
        update=update.mean() / sum(p.numel() for p in trained),
        importance_bytes=kept[0],
        train_bytes=kept[1],
    )


@dataclass(frozen=True)
class ProbeSettings:
    """What of a run's settings a pass depends on; see `minidisc.config.CompressSettings`."""

    loss: str = "hidden+logits"
    neuron_multiple: int = 8
    gradient_checkpointing: bool = False
    bf16: bool = False
    train_embeddings: bool = True


class _Networks:
    """A shallow copy of a teacher, if it is deep, and the sub-networks of it."""

    def __init__(
        self, teacher: Any, architecture: Architecture, sparsities: Sequence[float], settings: ProbeSettings
    ) -> None:
        whole, device = Shape.of(teacher, architecture), teacher.device
        depth = max(2, int(PARAMETERS / whole.prunable(whole.full()) * whole.layers))
        if depth >= whole.layers or not is_droppable(teacher, architecture):
            self.teacher, self.shape = teacher, whole
        else:
            self.teacher = with_layers(teacher, architecture, range(depth)).to(device)
            self.shape = Shape.of(self.teacher, architecture)
        self._more_layers = whole.layers / self.shape.layers
        self._architecture, self._settings = architecture, settings
        scores = even_scores(self.shape.full())
        self.specs = [make_spec(*scores, s, settings.neuron_multiple, needed=self.shape.needed) for s in sparsities]
        self.student = extract(self.teacher, self.specs[0]).to(device).train()
        self._network = NestedNetwork(self.student, architecture)
        # Their gradients would be most of what is tried, and are next to nothing of what a deep network takes; but a
        # language model's may be those of its choice of tokens too.
        for module in embedding_modules(self.student, architecture):
            module.requires_grad_(self.shape.vocabulary > 0 and settings.train_embeddings)
        compared = distilled_layers(whole.depth, whole.decoder_depth) if settings.loss in WITH_STATES else []
        states = [round(i * self.shape.depth / whole.depth) for i in compared]
        self._readers = [
            OutputReader(model, architecture, states, settings.loss in WITH_RELATIONS)
            for model in (self.teacher, self.student)
        ]

    def scale(self, spec: SubnetworkSpec, length: int) -> float:
        """How much longer a pass takes through all layers: a choice among a vocabulary is made only once."""
        flops, once = self.shape.forward_flops(spec, 1, length), 2 * length * self.shape.hidden * self.shape.vocabulary
        return self._more_layers + (1 - self._more_layers) * once / flops if once else self._more_layers

    def targets(self, inputs: Inputs) -> Outputs:
        with torch.no_grad(), self._autocast():
            return self._readers[0](inputs)

    def importance(self, inputs: Inputs, checkpointing: bool | None = None) -> None:
        compute_importance(
            self.teacher,
            self._architecture,
            [{**inputs, "labels": inputs["input_ids"]}],
            # What the loss is hardly matters to the time.
            lambda logits, _: logits.float().square().mean(),
            gradient_checkpointing=self._settings.gradient_checkpointing if checkpointing is None else checkpointing,
        )

    def train(self, index: int, inputs: Inputs, targets: Outputs) -> None:
        self._network.activate(self.specs[index])
        checkpointing = checkpointed(self.student, self._architecture, self._settings.gradient_checkpointing)
        with checkpointing, self._network.one_step(), self._autocast():
            self._loss(inputs, targets).backward()

    def evaluate(self, index: int, inputs: Inputs) -> None:
        self._network.activate(self.specs[index])
        with torch.no_grad():
            self.student(**inputs)

    def kept_bytes(self, inputs: Inputs) -> np.ndarray:
        """Bytes a row that layers, and what comes behind them, keep without checkpointing.

        Returns:
            (2, 2): of importance, and of the largest sub-network.
        """
        one, two = (self._kept_bytes({name: t[:rows] for name, t in inputs.items()}) for rows in (1, 2))
        # What is kept whatever the number of rows, such as weights in half precision, is no row's.
        return two - one

    def _kept_bytes(self, inputs: Inputs) -> np.ndarray:
        targets, kind = self.targets(inputs), self._architecture
        self._network.activate(self.specs[0])
        # The first layer, whose inputs need no gradient, would keep less than the others.
        embeddings = attrgetter(kind.embeddings)(self.teacher.base_model)
        handle = embeddings.register_forward_hook(lambda _, __, output: output.requires_grad_())
        with saved_bytes(self.teacher) as found, _behind(self.teacher, kind, found) as for_importance:
            self.importance(inputs, checkpointing=False)
        handle.remove()
        with saved_bytes(self.student) as found, _behind(self.student, kind, found) as for_training, self._autocast():
            self._loss(inputs, targets)
        return np.array([for_importance, for_training], dtype=float)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def _loss(self, inputs: Inputs, targets: Outputs) -> Tensor:
        loss, output = self._settings.loss, self._readers[1](inputs)
        labels = torch.zeros(output.logits.shape[:-1], dtype=torch.long, device=output.logits.device)
        at_last = self._architecture.pools_late
        return LOSSES[loss](output, targets, Truth(inputs["attention_mask"], labels, None, at_last=at_last))

    def _autocast(self) -> Any:
        return torch.autocast(self.teacher.device.type, torch.bfloat16, enabled=self._settings.bf16)


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[dict[int, int]]:
    """Count what autograd saves in the block, apart from the model's parameters: bytes by address."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            found[storage.data_ptr()] = storage.nbytes()
        # Not the tensor itself: an operation that saves its own output would keep itself alive.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield found


@contextmanager
def _behind(model: Any, architecture: Architecture, saved: dict[int, int]) -> Iterator[list[int]]:
    """Of the bytes that one pass saves, those up to the last layer, and those behind it."""
    found: list[int] = []
    last = ffns_of(model, architecture)[-1].module
    handle = last.register_forward_hook(lambda *_: found.append(sum(saved.values())))
    try:
        yield found
    finally:
        handle.remove()
    # It may have run several times.
    found[:] = [found[-1], sum(saved.values()) - found[-1]]


class _Stopwatch:
    """Wall and processor seconds of each lap, of which the first does not count."""

    def __init__(self) -> None:
        self.laps: list[tuple[float, float]] = []

    @contextmanager
    def lap(self) -> Iterator[None]:
        start = self._now()
        yield
        self.laps.append((self._now()[0] - start[0], self._now()[1] - start[1]))

    def mean(self) -> np.ndarray:
        return np.mean(self.laps[1:], axis=0)

    @staticmethod
    def _now() -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()
