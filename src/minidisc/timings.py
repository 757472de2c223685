"""How fast teacher, assistants, student and candidates are, on one thread of this machine's CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minidisc.extraction import extract
from minidisc.latency import BRIEF_ROUNDS, BRIEF_SECONDS, LARGEST_TIMED, batch_of, is_busy, one_thread, side_by_side
from minidisc.preparation import Preparation
from minidisc.subnetworks import SubnetworkSpec


def timings(
    prepared: Preparation, models: Mapping[str, Any], sizes: Sequence[SubnetworkSpec]
) -> dict[str, Any] | None:
    """Time networks, each side by side with the teacher, so that no more than two are in memory.

    Args:
        prepared: of the run; the teacher is brought back to memory if it is not there.
        models: those that the run has made, by name.
        sizes: of further networks; a network's time does not depend on its weights.

    Returns:
        ``batch_size`` and ``length`` of what they were given, ``busy`` (see `minidisc.latency.is_busy`), and
        ``networks``: for the teacher, each model and each size, by its name, what `side_by_side` gives; the
        teacher's is that beside the student. None for teachers of more than half a billion parameters.
    """
    if prepared.shape.all_parameters > LARGEST_TIMED:
        return None
    settings = prepared.settings
    length = settings.latency_length or prepared.mean_length
    inputs = batch_of(prepared.rows["train"], settings.latency_batch_size, length)
    prepared.need_teacher()
    teacher = prepared.loaded.model.cpu()
    networks: dict[str, Any] = {}
    busy = False
    with one_thread():
        for name, source in {**models, **{spec.name: spec for spec in sizes}}.items():
            model = extract(teacher, source) if isinstance(source, SubnetworkSpec) else source.cpu()
            found = side_by_side({"teacher": teacher, name: model}, inputs, BRIEF_ROUNDS, BRIEF_SECONDS)
            busy = busy or is_busy(found.values())
            if name == "student" or not networks:
                # The machine is not as fast at all times, and the report shows these two together.
                networks["teacher"] = found["teacher"]
            networks[name] = found[name]
    return {"batch_size": settings.latency_batch_size, "length": length, "busy": busy, "networks": networks}
