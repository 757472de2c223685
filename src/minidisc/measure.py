"""Sizes three ways, FLOPs, memory, time."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from minidisc.architectures import Architecture, Parts
from minidisc.layers import Rows, attentions_of, embedding_modules, ffns_of
from minidisc.modeling.narrow import counting_layers, head_sizes, inputs_of
from minidisc.results import Cost, Sizes
from minidisc.subnetworks import SubnetworkSpec


@dataclass(frozen=True)
class Shape:
    """What arithmetic needs to know of a family's model: ``hidden`` size, dimensions of a head, full widths.

    A head has ``head_size`` dimensions in queries and in the attention's output, ``key_size`` in keys and values.
    ``head_parameters`` and ``neuron_parameters`` belong to one head and one neuron; a neuron is a row or column of
    ``neuron_maps`` linear maps. Each head compares every token with so many relative ``positions``.
    ``runs`` says how often each of the ``layers`` (of the encoder) runs in one pass. A decoder reads
    ``decoder_length`` tokens, or, if that is None, as many as the encoder; then the hidden states of its
    ``decoder_depth`` layers are of tokens too. A language model chooses among ``vocabulary`` tokens. The attentions
    that are ``needed`` have to keep a head.
    """

    hidden: int
    head_size: int
    key_size: int
    layers: int
    attentions: tuple[Parts, ...]
    ffns: tuple[Parts, ...]
    heads: int
    neurons: int
    head_parameters: int
    neuron_parameters: int
    neuron_maps: int
    positions: int
    runs: tuple[int, ...]
    decoder_length: int | None
    all_parameters: int
    embedding_parameters: int
    needed: tuple[int, ...] = ()
    vocabulary: int = 0

    @classmethod
    def of(cls, model: Any, architecture: Architecture) -> Shape:
        """Read off a full-width model."""
        config = model.config
        hidden = getattr(config, architecture.hidden)
        attentions, ffns = attentions_of(model, architecture), ffns_of(model, architecture)
        layers = sum(not part.place.decodes for part in ffns)
        generates = model.can_generate()
        needed = {i for i, part in enumerate(attentions) if part.place.needed}
        size, key_size = head_sizes(config, architecture.layout)
        return cls(
            hidden=hidden,
            head_size=size,
            key_size=key_size,
            layers=layers,
            attentions=tuple(part.place for part in attentions),
            ffns=tuple(part.place for part in ffns),
            heads=getattr(config, architecture.prunable_heads),
            neurons=architecture.full_neurons(config),
            head_parameters=_row_parameters(attentions[0].rows) + size * hidden,
            neuron_parameters=_row_parameters(ffns[0].rows) + hidden,
            neuron_maps=1 + sum(len(rows.sizes) for rows in ffns[0].rows),
            positions=architecture.positions(config) if architecture.positions else 0,
            runs=tuple(architecture.runs(config)) if architecture.runs else (1,) * layers,
            decoder_length=architecture.decoder_length,
            all_parameters=sum(p.numel() for p in model.parameters()),
            embedding_parameters=_embedding_parameters(model, architecture),
            needed=tuple(sorted(needed.union(counting_layers(config) if generates else ()))),
            vocabulary=config.vocab_size if generates else 0,
        )

    @property
    def depth(self) -> int:
        """Layers that a token goes through, those that run several times counted as often."""
        return sum(self.runs)

    @property
    def decoder_depth(self) -> int:
        """Layers of a decoder that reads as many tokens as the encoder."""
        return sum(part.decodes for part in self.ffns) if self.decoder_length is None else 0

    def full(self) -> SubnetworkSpec:
        """The widths of the whole model."""
        return SubnetworkSpec(0.0, (self.heads,) * len(self.attentions), (self.neurons,) * len(self.ffns))

    def prunable(self, spec: SubnetworkSpec) -> int:
        """Weights and biases that belong to the heads and neurons of ``spec``."""
        return sum(spec.heads) * self.head_parameters + sum(spec.neurons) * self.neuron_parameters

    def sizes(self, spec: SubnetworkSpec) -> Sizes:
        """Parameters of the network that ``spec`` describes."""
        removed = self.prunable(self.full()) - self.prunable(spec)
        left = self.all_parameters - removed
        return Sizes(self.prunable(spec), left - self.embedding_parameters, left)

    def forward_flops(self, spec: SubnetworkSpec, rows: int, length: int) -> float:
        """Floating-point operations of one forward pass over the layers, a multiply-add counted as two.

        Embeddings, norms, activations and a classifier are left out: under two per cent of a full-width pass. A
        language model's choice of tokens is counted.
        """
        decoded = length if self.decoder_length is None else self.decoder_length
        total = 2 * rows * length * self.hidden * self.vocabulary
        for part, heads, runs in zip(self.attentions, spec.heads, self._runs(self.attentions), strict=True):
            queries = decoded if part.decodes else length
            keys = decoded if part.decodes and not part.crosses else length
            linear = 4 * rows * self.hidden * (queries * self.head_size + keys * self.key_size)
            attention = 4 * rows * queries * keys * self.head_size
            positions = 2 * self.positions * (self.hidden + rows * queries) * self.head_size
            total += heads * runs * (linear + attention + positions)
        for part, neurons, runs in zip(self.ffns, spec.neurons, self._runs(self.ffns), strict=True):
            tokens = rows * (decoded if part.decodes else length)
            total += 2 * tokens * self.hidden * self.neuron_maps * neurons * runs
        return float(total)

    def _runs(self, parts: tuple[Parts, ...]) -> tuple[int, ...]:
        """How often each of them runs in one pass; a decoder's once."""
        return (*self.runs, *(1,) * (len(parts) - self.layers))


def sizes_of(model: Any, architecture: Architecture, prunable: int) -> Sizes:
    """Count a model's parameters; how many are prunable is told."""
    parameters = sum(p.numel() for p in model.parameters())
    return Sizes(prunable, parameters - _embedding_parameters(model, architecture), parameters)


@contextmanager
def measured(cost: Cost) -> Iterator[Cost]:
    """Add the time that the block takes, and the process's peak memory in it, to ``cost``."""
    _reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds += time.perf_counter() - wall
        cost.cpu_seconds += time.process_time() - cpu
        cost.peak_memory = max(cost.peak_memory, peak_memory())


_STATUS = "/proc/self/status"


_highest = 0  # before the last reset, since `forget_memory`


def forget_memory() -> None:
    """Begin anew with `highest_memory`, for a run in a process that has made others (Linux)."""
    global _highest
    _reset_peak()
    _highest = 0


def _reset_peak() -> None:
    global _highest
    _highest = highest_memory()
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")


def peak_memory() -> int:
    """Largest resident size of this process, in bytes, since `measured` began (Linux) or since it started."""
    if os.path.exists(_STATUS):
        with open(_STATUS, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def highest_memory() -> int:
    """Largest resident size of this process, in bytes, since `forget_memory` (Linux) or since it started."""
    return max(_highest, peak_memory())


def processor() -> str:
    """Name and number of usable cores of the processor, as it stands beside figures."""
    name = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name or 'processor'}, {count} cores"


def _row_parameters(maps: list[Rows]) -> int:
    """Parameters in the rows of one head, or one neuron."""
    return sum(sum(x.sizes) * (inputs_of(x.linear) + (x.linear.bias is not None)) for x in maps)


def _embedding_parameters(model: Any, architecture: Architecture) -> int:
    return sum(p.numel() for module in embedding_modules(model, architecture) for p in module.parameters())
