import pytest
import torch

from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings
from minidisc.measure import Shape
from minidisc.memory import HOLES
from minidisc.preflight import estimate
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
    assert differing.memory / alike.memory == pytest.approx(1 + HOLES, rel=0.02)


def test_a_shorter_row_at_the_end_of_packed_text_leaves_no_holes():
    packed, alike = estimated([9] * 15 + [3]), estimated([9] * 16)
    assert packed.memory / alike.memory == pytest.approx(1, rel=0.02)


def test_latencies_at_the_end_are_counted():
    torch.manual_seed(0)
    one, many = (estimated([9] * 16, latency_batch_size=rows) for rows in (1, 1000))
    # Five networks, each for two seconds at the most.
    assert 5 < many.cpu_seconds - one.cpu_seconds <= 10.5
