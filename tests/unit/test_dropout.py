import pytest
import torch

from minidisc.layers import set_dropout
from tests.unit.families import OPT


def passes(model, inputs, count=2):
    torch.manual_seed(0)
    with torch.no_grad():
        return [model(**inputs).logits for _ in range(count)]


def test_a_family_trains_without_any_dropout_or_with_it(family):
    model, inputs = family.model(dropout=0.4), family.inputs()
    (expected,) = passes(model, inputs, 1)
    model.train()
    for probability in (None, 0.0, 0.4):
        if probability is not None:
            set_dropout(model, probability)
        for logits in passes(model, inputs):
            assert ((logits - expected).abs().max() < 1e-5) == (probability == 0)


def test_dropout_where_there_was_none_is_that_of_the_configuration(family):
    found = []
    for before in (0.0, 0.4):
        model = family.model(dropout=before).train()
        set_dropout(model, 0.4)
        found.append(passes(model, family.inputs(), 1)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("probability", [0.0, 0.4])
def test_whole_layers_are_not_left_out(probability):
    model = OPT.model(layerdrop=0.9).train()
    set_dropout(model, probability)
    states = [len(model(**OPT.inputs(seed=i), output_hidden_states=True).hidden_states) for i in range(5)]
    assert set(states) == {len(OPT.layers_of(model)) + 1}
