import pytest

from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings
from minidisc.disk import disk_needed, disk_of_cells
from minidisc.extraction import extract
from minidisc.measure import Shape
from minidisc.subnetworks import even_scores, make_spec
from tests.unit.families import BERT

SPARSITIES = (0.25, 0.5, 0.75)


def sizes():
    """Of a tiny model its shape, sub-networks of `SPARSITIES`, and their parameters, counted."""
    model = BERT.model()
    shape = Shape.of(model, architecture_for("bert"))
    specs = [make_spec(*even_scores(shape.full()), sparsity) for sparsity in SPARSITIES]
    return shape, specs, [sum(p.numel() for p in extract(model, spec).parameters()) for spec in specs]


@pytest.mark.parametrize(
    ("changes", "stages", "copies"),
    [
        # Of the largest an old and a new checkpoint, each of weights and two moments; of both stages a snapshot for
        # each size, all as large as the stage's largest; each size as it is kept; an assistant and a student.
        ({}, [(0, 1, 2), (2,)], (2 * 3 + 3 + 1 + 1, 1, 1 + 2 + 1)),
        ({"keep_sizes": False}, [(0, 1, 2), (2,)], (2 * 3 + 3 + 1, 0, 1 + 1)),
        ({"optimizer": "adafactor"}, [(0, 1, 2), (2,)], (2 * 1 + 3 + 1 + 1, 1, 1 + 2 + 1)),
        # And the second stage's last checkpoint.
        ({"keep_checkpoints": True}, [(0, 1, 2), (2,)], (2 * 3 + 3 + 1 + 1, 1, 3 + 1 + 2 + 1)),
        ({"stages": 1}, [(0, 1, 2)], (2 * 3 + 3 + 1 + 1, 1, 1)),
        # Two trials, of which one has an assistant and a student.
        ({"schedule": "maxidisc"}, [(0,), (2,), (1,), (2,)], (2 * 3 + 1 + 1 + 1, 1 + 1, 2 + 2 + 1)),
    ],
)
def test_the_disk_holds_so_many_copies_of_each_size(changes, stages, copies):
    shape, specs, numbers = sizes()
    settings = CompressSettings(
        teacher="t", output_dir="o", target_sparsity=SPARSITIES[-1], grid=SPARSITIES[:-1], **changes
    )
    found = disk_needed(shape, settings, [[specs[i] for i in stage] for stage in stages], [])
    assert found == 4 * sum(times * count for times, count in zip(copies, numbers, strict=True))


def test_the_disk_holds_a_comparisons_stages_once():
    shape, specs, (large, _, small) = sizes()
    settings = CompressSettings(teacher="t", output_dir="o", target_sparsity=SPARSITIES[-1])
    cells = [(settings, [("sandwich", specs), (student, specs[-1:])]) for student in ("one", "other")]
    assert disk_of_cells(shape, cells, lambda _: []) == 4 * ((2 * 3 + 3) * large + 2 * small)
