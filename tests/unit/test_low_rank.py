import copy

import numpy as np
import pytest
import torch

from minidisc.architectures import architecture_for
from minidisc.errors import UserError
from minidisc.extraction import extract
from minidisc.layer_dropping import drop_layers
from minidisc.low_rank import check_rank, factorise, student_state
from minidisc.nested import order_by_importance
from minidisc.subnetworks import SubnetworkSpec
from tests.unit.families import BERT, LLAMA

RANK = 5
SPEC = SubnetworkSpec(0.6, (2, 0, 3), (10, 5, 0))
# Embeddings that are scaled, or that an encoder and a decoder could share.
REFUSED = {"gemma", "gemma2", "gemma3", "t5", "t5-encoder", "enct5"}


def counts(model, seed=0):
    rows = model.base_model.get_input_embeddings().num_embeddings
    return torch.from_numpy(np.random.default_rng(seed).poisson(3.0, rows) ** 2)


def product(model):
    """The table that a student's embeddings amount to."""
    state = student_state(model)
    name = next(name.removesuffix(".expand.weight") for name in state if name.endswith("expand.weight"))
    return state[f"{name}.weight"] @ state[f"{name}.expand.weight"].T


def test_the_best_product_of_the_rank():
    model = BERT.model(seed=1)
    table = model.get_input_embeddings().weight.detach().clone()
    found = factorise(model, RANK, counts(model))
    # Against SciPy's route, the truncated singular value decomposition of the weighted rows.
    scale = (counts(model).numpy() + 1.0)[:, None] ** 0.5
    left, values, right = np.linalg.svd(table.numpy().astype(float) * scale, full_matrices=False)
    best = (left[:, :RANK] * values[:RANK]) @ right[:RANK] / scale
    np.testing.assert_allclose(product(model).numpy(), best, atol=1e-6)
    assert found["error"] == pytest.approx((values[RANK:] ** 2).sum() / (values**2).sum())
    assert found["saved"] == table.numel() - RANK * sum(table.shape)
    assert torch.equal(model.get_input_embeddings().weight, table)


def test_students_are_those_of_a_model_with_the_product_for_a_table(family):
    teacher = family.model(seed=3)
    if family.name in REFUSED:
        with pytest.raises(UserError, match="a table of their own"):
            check_rank(teacher, RANK)
        return
    check_rank(teacher, RANK)
    architecture = architecture_for(family.family)
    factorise(teacher, RANK, counts(teacher))
    order_by_importance(teacher, architecture, family.importance(0))
    other = copy.deepcopy(teacher)
    other.base_model.get_input_embeddings().weight.data.copy_(product(teacher))
    del other.embedding_factors, other.config.embedding_rank
    spec = family.fit(SPEC)
    pairs = [(extract(teacher, spec), extract(other, spec))]
    if family.drops_layers:
        pairs.append((drop_layers(teacher, architecture, 0.3)[0], drop_layers(other, architecture, 0.3)[0]))
    inputs = family.inputs()
    for thin, whole in pairs:
        with torch.no_grad():
            torch.testing.assert_close(thin(**inputs).logits, whole(**inputs).logits, atol=1e-5, rtol=1e-4)
        table = whole.base_model.get_input_embeddings().weight
        saved = table.numel() - RANK * sum(table.shape)
        assert sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in thin.parameters()) == saved
    student = pairs[0][0]
    again = extract(student, spec)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in student.state_dict().items())


def test_it_learns():
    model = BERT.model(seed=1)
    factorise(model, RANK, counts(model))
    student = extract(model, SPEC).train()
    student(**BERT.inputs()).logits.square().sum().backward()
    table = student.get_input_embeddings()
    assert table.weight.grad.abs().sum() > 0
    assert table.expand.weight.grad.abs().sum() > 0


def test_refused():
    model = BERT.model()
    rows, hidden = model.get_input_embeddings().weight.shape
    most = max(rank for rank in range(hidden) if rank * (rows + hidden) < rows * hidden)
    check_rank(model, most)
    with pytest.raises(
        UserError, match=f"saves nothing with {rows} pieces of {hidden} numbers; allowed are 1 to {most}"
    ):
        check_rank(model, most + 1)
    tied = LLAMA.causal_model(tie_word_embeddings=True)
    with pytest.raises(UserError, match="choose the next token"):
        check_rank(tied, RANK)
