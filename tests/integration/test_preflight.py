import numpy as np
import pytest

from minidisc import preflight
from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings
from minidisc.measure import Shape
from minidisc.memory import HOLES
from minidisc.preflight import estimate
from minidisc.probing import Probe
from minidisc.subnetworks import even_scores, make_spec
from minidisc.tasks import collator
from tests.unit.families import BERT, tiny_tokenizer, training_rows


def estimated(lengths, **changes):
    """Of a run of a tiny model on rows of these lengths, in two stages."""
    model = BERT.model()
    architecture = architecture_for("bert")
    shape = Shape.of(model, architecture)
    specs = [make_spec(*even_scores(shape.full()), s) for s in (0.25, 0.5, 0.75)]
    settings = CompressSettings(
        teacher="t", train_file="f", output_dir="o", batch_size=4, device="cpu", precision="fp32", **changes
    )
    rows = dict.fromkeys(("train", "calibration", "selection", "validation"), training_rows(BERT, lengths))
    stages = [specs, specs[-1:]]
    return estimate(settings, model, architecture, shape, stages, rows, collator(tiny_tokenizer()), True, True)


def test_holes_of_the_heap_are_counted_where_rows_differ_in_length():
    alike, differing = estimated([9] * 16), estimated([9] * 8 + [3] * 8)
    assert alike.phases == differing.phases
    # What the process holds besides, most of it here, changes a little from one to the other.
    assert differing.memory / alike.memory == pytest.approx(1 + HOLES / 2, rel=0.02)


def test_a_shorter_row_at_the_end_of_packed_text_leaves_no_holes():
    packed, alike = estimated([9] * 15 + [3]), estimated([9] * 16)
    assert packed.memory / alike.memory == pytest.approx(1, rel=0.02)


def test_latencies_at_the_end_are_counted(monkeypatch):
    # A pass of the teacher, and one of any other, for 2 + 1 milliseconds of the processor.
    passes = {"forward": np.array([4e-3, 2e-3]), "evaluate": 3 * [np.array([2e-3, 1e-3])]}
    others = {"importance": np.zeros(2), "train": 3 * [np.zeros(2)], "update": np.zeros(2)}
    probed = Probe(sparsities=[0.25, 0.5, 0.75], importance_bytes=0, train_bytes=0, **passes, **others)
    monkeypatch.setattr(preflight, "probe", lambda *_: probed)
    one, many = (estimated([9] * 16, latency_batch_size=rows) for rows in (1, 1000))
    # Five networks: three sizes of the first stage, and what either stage has made. Each is timed in 21 rounds and one
    # before, for two seconds at the most.
    assert many.cpu_seconds - one.cpu_seconds == pytest.approx(5 * 2 - 5 * 22 * 3e-3, abs=0.1)
    assert many.seconds - one.seconds == pytest.approx(5 * 2 - 5 * 22 * 6e-3, abs=0.1)
