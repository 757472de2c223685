"""How fast teacher, assistants, student and candidates are, on one thread of this machine's CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minidisc.extraction import extract
from minidisc.latency import BRIEF_ROUNDS, BRIEF_SECONDS, LARGEST_TIMED, batch_of, is_busy, one_thread, side_by_side
from minidisc.preparation import Preparation
from minidisc.subnetworks import SubnetworkSpec


def timings(
    prepared: Preparation, models: Mapping[str, tuple[SubnetworkSpec, Any]], sizes: Sequence[SubnetworkSpec]
) -> dict[str, Any] | None:
    """Time networks, each side by side with the teacher, so that no more than two are in memory.

    A network's time does not depend on its weights: those of the same widths are timed once.

    Args:
        prepared: of the run; the teacher is brought back to memory if it is not there.
        models: those that the run has made, by name, with their widths; ``student`` is one of them.
        sizes: of further networks.

    Returns:
        ``batch_size`` and ``length`` of what they were given, ``busy`` (see `minidisc.latency.is_busy`), and
        ``networks``: for the teacher, each model and each size, by its name, what `side_by_side` gives; the
        teacher's is that beside the student, and all other times are scaled to it. None for teachers of more than
        half a billion parameters.
    """
    if prepared.shape.all_parameters > LARGEST_TIMED:
        return None
    settings = prepared.settings
    length = settings.latency_length or prepared.mean_length
    inputs = batch_of(prepared.rows["train"], settings.latency_batch_size, length)
    prepared.need_teacher()
    teacher = prepared.loaded.model.cpu()
    named = {**models, **{spec.name: (spec, None) for spec in sizes}}
    rounds: dict[Any, list[dict[str, float]]] = {}
    with one_thread():
        for spec, made in named.values():
            if _widths(spec) not in rounds:
                model = extract(teacher, spec) if made is None else made.cpu()
                pair = {"teacher": teacher, "other": model}
                rounds[_widths(spec)] = list(side_by_side(pair, inputs, BRIEF_ROUNDS, BRIEF_SECONDS).values())
    whole = rounds[_widths(models["student"][0])][0]
    networks = {name: _scaled(whole, *rounds[_widths(spec)]) for name, (spec, _) in named.items()}
    busy = is_busy(times for pair in rounds.values() for times in pair)
    return {
        "batch_size": settings.latency_batch_size,
        "length": length,
        "busy": busy,
        "networks": {"teacher": whole, **networks},
    }


def _widths(spec: SubnetworkSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return spec.heads, spec.neurons


def _scaled(whole: dict[str, float], teacher: dict[str, float], own: dict[str, float]) -> dict[str, float]:
    """A network's times as if the teacher beside it had taken the time of ``whole``.

    The machine is not as fast at all times: else a network could take less time than the teacher, and yet be the
    slower one of the two beside it.
    """
    factor = whole["processor_milliseconds"] / teacher["processor_milliseconds"]
    return {name: value if name == "speedup" else factor * value for name, value in own.items()}
