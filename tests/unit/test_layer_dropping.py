import pytest
import torch

from minidisc.architectures import architecture_for
from minidisc.errors import UserError
from minidisc.layer_dropping import drop_layers, kept_layers
from minidisc.nested import order_by_importance
from tests.unit.families import GPT2, LAYERS


@pytest.mark.parametrize(
    ("layers", "kept", "expected"),
    [
        (12, 6, [1, 3, 5, 7, 9, 11]),
        (12, 4, [2, 5, 8, 11]),
        (6, 3, [1, 3, 5]),
        (6, 1, [5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (12, 5, [1, 4, 6, 9, 11]),
    ],
)
def test_every_kth_layer(layers, kept, expected):
    assert kept_layers(layers, kept) == expected


@pytest.mark.parametrize(("sparsity", "kept"), [(0.3, [1, 2]), (0.65, [2]), (0.95, [2])])
def test_a_shallow_student_is_the_model_with_the_other_layers_taken_out(family, sparsity, kept):
    kept = [0, *kept[1:]] if family.keeps_first else kept
    teacher = family.model(seed=3)
    architecture = architecture_for(family.family)
    if not family.drops_layers:
        with pytest.raises(UserError, match=r"share their weights|an encoder and a decoder"):
            drop_layers(teacher, architecture, sparsity)
        return
    unordered = {name: value.clone() for name, value in teacher.state_dict().items()}
    order_by_importance(teacher, architecture, family.importance(0))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    small, spec = drop_layers(teacher, architecture, sparsity)
    assert spec.sparsity == sparsity
    assert len(spec.heads) == len(spec.neurons) == len(kept)

    # The family's own class, built with so many layers, and the weights copied over by name.
    depth = {"distilbert": "n_layers"}.get(family.family, "num_hidden_layers")
    lists = {name: [getattr(teacher.config, name)[i] for i in kept] for name in family.per_layer}
    plain = family.model_class(family.config(num_hidden_layers=len(kept), **lists))
    assert getattr(plain.config, depth) == len(kept)
    state = {}
    for name, value in unordered.items():
        head, marker, tail = name.partition(f"{family.layers}.")
        number, _, rest = tail.partition(".")
        if not marker:
            state[name] = value
        elif int(number) in kept:
            state[f"{head}{marker}{kept.index(int(number))}.{rest}"] = value
    plain.load_state_dict(state)
    inputs = family.inputs()
    with torch.no_grad():
        torch.testing.assert_close(small(**inputs).logits, plain.eval()(**inputs).logits, atol=1e-5, rtol=0)
    # The teacher is whole again, and shares nothing.
    assert len(family.layers_of(teacher)) == LAYERS
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in before.items())


def test_scores_that_are_divided_by_the_number_of_the_layer_stay_as_they_are():
    teacher, inputs = GPT2.model(scale_attn_by_inverse_layer_idx=True), GPT2.inputs()
    small, _ = drop_layers(teacher, architecture_for("gpt2"), 0.3)
    # The teacher's own modules, which know their old numbers.
    del teacher.transformer.h[0]
    with torch.no_grad():
        torch.testing.assert_close(small(**inputs).logits, teacher(**inputs).logits, atol=1e-5, rtol=0)
