import numpy as np
import pytest
import torch

from minidisc.label_scale import LabelScale
from minidisc.modeling.classes import build_narrow
from tests.unit.families import BERT, LLAMA

LABELS = np.array([0.0, 20.0, 30.0, 90.0, 60.0])


def outputs(model, family):
    with torch.no_grad():
        return model(**family.inputs()).logits.double()


def test_any_familys_head_takes_the_scale_over_and_gives_it_back(family):
    model = family.model(num_labels=1)
    before = outputs(model, family)
    scale = LabelScale.of(model, LABELS)
    scale.put_in()
    folded = outputs(model, family)
    assert torch.allclose(folded, before * scale.spread + scale.mean, rtol=1e-4, atol=1e-3)
    assert torch.allclose(folded, scale.labels(before), rtol=1e-4, atol=1e-3)
    scale.take_out()
    assert torch.allclose(outputs(model, family), before, rtol=1e-4, atol=1e-4)


def test_numbers_have_mean_0_and_deviation_1_where_the_head_has_a_bias():
    scale = LabelScale.of(BERT.model(num_labels=1), LABELS - 1000)
    assert scale.mean == pytest.approx(-960)
    numbers = scale.numbers(LABELS - 1000)
    assert numbers.mean() == pytest.approx(0) and numbers.std() == pytest.approx(1)


def test_without_a_bias_numbers_are_of_order_one():
    scale = LabelScale.of(LLAMA.model(num_labels=1), LABELS - 1000)
    assert scale.mean == 0
    assert np.square(scale.numbers(LABELS - 1000)).mean() == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, -1000.1])
def test_labels_that_are_all_the_same_are_not_divided_by_nothing(value):
    scale = LabelScale.of(BERT.model(num_labels=1), np.full(7, value))
    assert (scale.mean, scale.spread) == (pytest.approx(value), 1.0)


def test_an_ffn_of_one_neuron_is_no_head():
    model = build_narrow(BERT.model(num_labels=1), (1, 1, 1), (1, 1, 1))
    assert LabelScale.of(model, LABELS).name == "classifier"
