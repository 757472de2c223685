"""What the benchmarks of a step compare is the same work: losses, widths and FLOPs, each found in another way."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import heap
from arithmetic import Replay, flops, products_of, products_of_step
from plain_protocol import PlainBert, PlainTraining, pad
from profiling import OTHER, kind_of
from rounds import ratio
from sandwich_step import STRATA, drawn_batches
from scaling import slope
from steps import ALL, FloorStep, OurStep, padding_tokenizer, random_bert, random_rows, specs_of, step_flops

from minidisc.architectures import architecture_for
from minidisc.measure import Shape
from minidisc.subnetworks import SubnetworkSpec

LENGTHS = (5, 9, 7, 12)
BATCH = range(len(LENGTHS))


@pytest.fixture(scope="module")
def model():
    made = random_bert(3, 32, 4, 64, vocabulary=100, length=64).eval()
    with torch.no_grad():
        # With weights as small as BERT's all candidates would have nearly the same loss.
        for name, parameter in made.named_parameters():
            # Where a layer keeps no heads, or neurons, minidisc still adds this bias; the plain protocol does not.
            if "LayerNorm" not in name and not name.endswith("output.dense.bias"):
                parameter.normal_(std=0.3)
    return made


@pytest.fixture(scope="module")
def candidates(model):
    # One layer without heads, one without neurons.
    return [*specs_of(model, [0.5, 0.8]), SubnetworkSpec(0.9, (1, 0, 0), (0, 8, 0))]


def test_plain_protocol_our_step_and_floor_have_the_same_losses(model, candidates, tmp_path):
    rows = random_rows(LENGTHS, 100)
    batch = pad(rows.to_list(), 64, ["input_ids", "attention_mask"])
    plain = PlainTraining(PlainBert(model, dropout=0.0), PlainBert(model), candidates)
    losses = [loss.item() for loss in plain.losses(batch)]
    mean = sum(losses) / len(losses)
    assert max(losses) > 1.05 * min(losses)
    ours = OurStep(model, candidates, rows, padding_tokenizer(), ALL, tmp_path, batch_size=len(LENGTHS))
    floor = FloorStep(model, candidates, rows, padding_tokenizer(), tmp_path)
    # The teacher's hidden states are kept in half precision.
    assert ours(BATCH) == pytest.approx(mean, rel=1e-4)
    assert floor(BATCH, candidates) == pytest.approx(mean, rel=1e-4)
    assert plain.step(batch) == pytest.approx(mean, rel=1e-6)


def test_plain_protocol_pads_without_effect(model, candidates):
    rows = random_rows(LENGTHS, 100).to_list()
    plain = PlainTraining(PlainBert(model, dropout=0.0), PlainBert(model), candidates)
    short, long = (
        [loss.item() for loss in plain.losses(pad(rows, length, ["input_ids", "attention_mask"]))]
        for length in (max(LENGTHS), 64)
    )
    assert short == pytest.approx(long, rel=1e-5)


def test_whole_plain_network_is_that_of_transformers(model):
    rows = random_rows(LENGTHS, 100).to_list()
    batch = pad(rows, 20, ["input_ids", "attention_mask"])
    with torch.no_grad():
        own, theirs = PlainBert(model).eval()(batch), model(**batch, output_hidden_states=True)
    torch.testing.assert_close(own.logits, theirs.logits, rtol=1e-4, atol=1e-5)
    chosen = torch.stack(theirs.hidden_states, 1)[batch["attention_mask"].bool()[:, None].expand(-1, 4, -1)]
    torch.testing.assert_close(own.states, chosen, rtol=1e-4, atol=1e-5)


def test_floor_trains_networks_of_the_candidates_widths(model, candidates, tmp_path):
    rows = random_rows(LENGTHS, 100)
    OurStep(model, candidates, rows, padding_tokenizer(), ALL, tmp_path, batch_size=len(LENGTHS))
    floor = FloorStep(model, candidates, rows, padding_tokenizer(), tmp_path)
    for spec, network in floor.networks.items():
        layers = network.base_model.encoder.layer
        assert [layer.attention.self.query.weight.shape[0] for layer in layers] == [8 * n for n in spec.heads]
        assert [tuple(layer.output.dense.weight.shape) for layer in layers] == [(32, n) for n in spec.neurons]
    before = floor.networks[floor.widest].classifier.weight.clone()
    floor(BATCH, candidates)
    assert not torch.equal(before, floor.networks[floor.widest].classifier.weight)


def test_flops_of_the_limit():
    shape = Shape.of(random_bert(2, 8, 2, 16, vocabulary=20, length=16), architecture_for("bert"))
    spec = SubnetworkSpec(0.5, (1, 0), (5, 0))
    # Two rows of three tokens, one head of 4: queries, keys, values; the output; scores and mixing; five neurons.
    forward = 3 * 2 * 6 * 8 * 4 + 2 * 6 * 4 * 8 + 2 * (2 * 2 * 3 * 4 * 3) + 2 * (2 * 6 * 8 * 5)
    assert flops(products_of(shape, spec, 2, 3)) == 3 * forward == step_flops(shape, [spec], 2, 3)
    both = products_of_step(shape, [spec, shape.full()], 2, 3)
    assert flops(both) == step_flops(shape, [spec, shape.full()], 2, 3)


def test_replay_does_the_products_it_counts():
    counter = FlopCounterMode(display=False)
    shape = Shape.of(random_bert(2, 8, 2, 16, vocabulary=20, length=16), architecture_for("bert"))
    products = products_of(shape, SubnetworkSpec(0.5, (1, 2), (5, 3)), 2, 3)
    with counter:
        Replay()(products)
    assert counter.get_total_flops() == flops(products)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::bmm", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "matrix products"),
        ("aten::bernoulli_", "dropout and random numbers"),
        ("aten::masked_select", "selection and scatter"),
        ("aten::embedding_dense_backward", "selection and scatter"),
        ("aten::_fused_adamw_", "optimiser"),
        ("aten::_softmax_backward_data", "norms and softmax"),
        ("aten::copy_", "copies and zeros"),
        ("aten::add_", "elementwise and sums"),
        ("aten::view", OTHER),
    ],
)
def test_kinds_of_operations(operation, kind):
    assert kind_of(operation) == kind


def test_batches_of_a_round_are_of_all_lengths():
    lengths = list(range(1, 161))
    for batches in drawn_batches(lengths, 4, rounds=5):
        # Forty batches of four rows, sorted by length: ten to a quarter.
        assert [(max(lengths[row] for row in batch) - 1) // 40 for batch in batches] == list(range(STRATA))


def test_ratios_are_of_one_round():
    times = {"a": {"wall": [2.0, 9.0, 40.0], "processor": [1.0] * 3}, "b": {"wall": [1.0, 3.0, 20.0]}}
    times["b"]["processor"] = [1.0] * 3
    assert ratio(times, "a", "b")["wall"]["median"] == 2.0


def test_slope():
    assert slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


def test_the_heap_s_variants_are_compared_step_by_step():
    base, other = "trimmed before a larger batch alone", "as it is"
    # Seconds, faults, bytes, trims so far; the first step does not count for the times.
    found = {base: [[9, 9, 1, 1], [1, 2, 4, 1], [4, 4, 2, 1]], other: [[9, 9, 3, 0], [2, 6, 1, 1], [2, 2, 2, 3]]}
    figures = heap.summary(found, skipped=1)
    assert figures[base]["ratio"] == {"mean": 1, "error": 0}
    # 2 and a half: each other's reciprocal.
    assert figures[other]["ratio"]["mean"] == pytest.approx(1)
    assert figures[other]["ratio"]["error"] == pytest.approx(0.6931, abs=1e-4)
    assert {key: figures[other][key] for key in ("resident", "faults", "trims")} == {
        "resident": 3,
        "faults": 4,
        "trims": 1,
    }
    assert "| as it is | 2.00 (2.00 … 2.00) | 1.000 ± 0.693 |" in heap.page(
        {"record": {"command": "c", "threads": 1, "machine": "m", "load": 0.0}, "steps": 3, "variants": figures}
    )
