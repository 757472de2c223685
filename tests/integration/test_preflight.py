from contextlib import nullcontext

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

SPARSITIES = (0.25, 0.5, 0.75)


def estimated(lengths, sparsities=SPARSITIES, stored=True, **changes):
    """Of a run of a tiny model on rows of these lengths, in two stages."""
    model = BERT.model()
    architecture = architecture_for("bert")
    shape = Shape.of(model, architecture)
    specs = [make_spec(*even_scores(shape.full()), s) for s in sparsities]
    settings = CompressSettings(
        teacher="t", train_file="f", output_dir="o", batch_size=4, device="cpu", precision="fp32", **changes
    )
    rows = dict.fromkeys(("train", "calibration", "selection", "validation"), training_rows(BERT, lengths))
    stages = [specs, specs[-1:]]
    return estimate(settings, model, architecture, shape, stages, rows, collator(tiny_tokenizer()), stored, True)


@pytest.fixture
def probed(monkeypatch):
    """Lets passes take so many wall and processor seconds: a teacher's, and any other's; and nothing else any."""

    def take(forward, evaluate=(0, 0)):
        def probe(teacher, architecture, sparsities, *_):
            return Probe(
                forward=np.array(forward),
                importance=np.zeros(2),
                sparsities=sparsities,
                train=[np.zeros(2)] * len(sparsities),
                evaluate=[np.array(evaluate)] * len(sparsities),
                update=np.zeros(2),
                importance_bytes=0,
                train_bytes=0,
            )

        monkeypatch.setattr(preflight, "probe", probe)
        # Nor does the trial itself.
        monkeypatch.setattr(preflight, "measured", nullcontext)

    return take


@pytest.fixture
def steady(monkeypatch):
    """Lets the process hold as much besides a run's tensors, whatever ran in it before."""
    monkeypatch.setattr(preflight, "_beside", lambda teacher: 10**8)
    monkeypatch.setattr(preflight, "measured", nullcontext)


@pytest.mark.usefixtures("steady")
def test_holes_of_the_heap_are_counted_where_rows_differ_in_length():
    alike, differing = estimated([9] * 16), estimated([9] * 8 + [3] * 8)
    assert alike.phases == differing.phases
    assert differing.memory / alike.memory == pytest.approx(1 + HOLES / 2)


@pytest.mark.usefixtures("steady")
def test_a_shorter_row_at_the_end_of_packed_text_leaves_no_holes():
    packed, alike = estimated([9] * 15 + [3]), estimated([9] * 16)
    assert packed.memory == alike.memory


def test_latencies_at_the_end_are_counted(probed):
    # A pass of the teacher, and one of any other, for 2 + 1 milliseconds of the processor.
    probed(forward=(4e-3, 2e-3), evaluate=(2e-3, 1e-3))
    one, many = (estimated([9] * 16, latency_batch_size=rows) for rows in (1, 1000))
    # Three networks, the sizes of the first stage; what either stage has made is as wide as one of them. Each is timed
    # in 21 rounds and one before, for two seconds at the most.
    assert many.cpu_seconds - one.cpu_seconds == pytest.approx(3 * 2 - 3 * 22 * 3e-3)
    assert many.seconds - one.seconds == pytest.approx(3 * 2 - 3 * 22 * 6e-3)


@pytest.mark.parametrize(("stored", "passes"), [(True, 1), (False, 3)])
def test_a_teacher_takes_its_time_for_every_row_once_or_at_every_step(probed, stored, passes):
    probed(forward=(5.0, 4.0))
    taught, alone = (estimated([9] * 16, stored=stored, epochs=3, loss=loss) for loss in ("logits", "labels"))
    # Who teaches the second stage is another network, which takes no time here.
    assert taught.seconds - alone.seconds == pytest.approx(passes * 16 * 5)
    assert taught.cpu_seconds - alone.cpu_seconds == pytest.approx(passes * 16 * 4)


@pytest.mark.parametrize(
    ("rule", "draws"),
    [
        ("largest+smallest+1", [(0.2, 0.4, 0.8), (0.2, 0.6, 0.8)]),
        ("smallest+2", [(0.2, 0.4, 0.8), (0.2, 0.6, 0.8), (0.4, 0.6, 0.8)]),
        ("largest+smallest+2", [(0.2, 0.4, 0.6, 0.8)]),
    ],
)
def test_a_candidate_costs_as_often_as_it_is_drawn(probed, rule, draws):
    probed(forward=(0, 0))
    # Without a teacher, which is another one behind other candidates.
    expected = [estimated([9] * 16, sizes, loss="labels", candidates_per_step="all").flops for sizes in draws]
    found = estimated([9] * 16, (0.2, 0.4, 0.6, 0.8), loss="labels", candidates_per_step=rule).flops
    assert found == pytest.approx(np.mean(expected), rel=1e-9)
