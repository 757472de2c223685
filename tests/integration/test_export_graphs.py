import pytest
import torch

from minidisc.exporting.engines import Engine
from minidisc.exporting.graph import write_onnx
from minidisc.extraction import extract
from minidisc.subnetworks import SubnetworkSpec
from tests.unit.families import (
    ALBERT,
    DEBERTA_V2,
    DISTILBERT,
    GEMMA2,
    GPT2,
    LLAMA,
    MODERNBERT,
    MPNET,
    PHI3,
    QWEN3,
    T5,
)

# An export takes seconds, and longer with more layers: one family of each way to attend, one layer without neurons and
# one without heads. BERT's is in the integration tests.
FAMILIES = [DISTILBERT, MPNET, MODERNBERT, DEBERTA_V2, ALBERT, LLAMA, QWEN3, GEMMA2, GPT2, PHI3, T5]


def shallow(row):
    """A model of the family with few layers, and widths for it."""
    # ModernBERT's first layer has no norm, and the heads of another one attend within a window.
    count = 3 if row is MODERNBERT else 2
    changes = {"num_hidden_layers": count, **{name: getattr(row.config(), name)[:count] for name in row.per_layer}}
    if row is ALBERT:
        # As many layers as are its own, the first of which runs twice.
        changes = {"num_hidden_layers": 3, "num_hidden_groups": 2}
    # A decoder's parts have widths of their own.
    heads = ((2, 0, 1)[:count] * 3)[: count + 2 * row.decoder_layers]
    neurons = ((0, 11, 24)[:count] * 3)[: count + row.decoder_layers]
    model = row.token_model(**changes) if row is DISTILBERT else row.model(**changes)
    return model, SubnetworkSpec(0.8, heads, neurons)


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row.name)
def test_families_with_empty_layers(row, tmp_path):
    model = extract(*shallow(row))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write_onnx(model, row.inputs(rows=2, length=7), tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    engine = Engine(tmp_path / "model.onnx", 1)
    for rows, length in ((1, 3), (5, 15)):
        inputs = row.inputs(rows, length, seed=3)
        with torch.no_grad():
            torch.testing.assert_close(engine(**inputs).logits, model(**inputs).logits, atol=2e-5, rtol=1e-5)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_layer_without_heads_is_traced_for_any_number_of_rows():
    attention = extract(*shallow(DISTILBERT)).distilbert.transformer.layer[1].attention
    assert attention.kept_heads == 0
    width = attention.q_lin.in_features
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(attention, (torch.randn(2, 7, width),), dynamic_shapes=(sizes,), strict=False)
    states = torch.randn(5, 3, width)
    torch.testing.assert_close(exported.module()(states)[0], attention(states)[0])
