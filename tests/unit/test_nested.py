import copy
import warnings
from operator import attrgetter

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from minidisc.architectures import architecture_for
from minidisc.checkpointing import checkpointed
from minidisc.extraction import extract
from minidisc.importance import ABSENT
from minidisc.nested import NestedLinear, NestedNetwork, order_by_importance
from minidisc.subnetworks import SubnetworkSpec, full_width
from tests.unit.families import BERT, HEADS, LAYERS, NEURONS, matrix

TOLERANCE = {"atol": 1e-5, "rtol": 0}


def ordered(family, importance, **changes):
    """A random teacher and the nested network of its ordered copy."""
    teacher = family.model(**changes)
    model = copy.deepcopy(teacher)
    order_by_importance(model, architecture_for(family.family), importance)
    return teacher, NestedNetwork(model, architecture_for(family.family))


@torch.no_grad()
def masked(family, teacher, importance, spec):
    """The teacher without what ``spec`` removes: a head or neuron whose output nobody reads does not exist."""
    model, size = copy.deepcopy(teacher), family.head_size
    for linear, scores, kept in zip(family.attention_outputs(model), importance.heads, spec.heads, strict=True):
        read = matrix(linear)
        by_score = sorted(range(read.shape[1] // size), key=lambda h, s=scores: -s[h].item())
        for head in by_score[kept:]:
            read[:, head * size : (head + 1) * size] = 0
    for linear, scores, kept in zip(family.ffn_downs(model), importance.neurons, spec.neurons, strict=True):
        read = matrix(linear)
        by_score = sorted(range(read.shape[1]), key=lambda n, s=scores: -s[n].item())
        read[:, by_score[kept:]] = 0
    return model


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def widths(family):
    attentions, ffns = family.parts
    heads, neurons = st.integers(0, HEADS), st.integers(0, NEURONS)
    return st.builds(SubnetworkSpec, st.just(0.5), st.tuples(*[heads] * attentions), st.tuples(*[neurons] * ffns))


def test_full_width_is_the_teacher(family, attention):
    teacher, network = ordered(family, family.importance(1), attention=attention)
    inputs = family.inputs()
    expected = logits(teacher, inputs)
    torch.testing.assert_close(logits(network.model, inputs), expected, **TOLERANCE)
    network.activate(family.fit(SubnetworkSpec(0.5, (1,) * LAYERS, (3,) * LAYERS)))
    assert (logits(network.model, inputs) - expected).abs().max() > 1e-2
    for spec in (None, family.fit(full_width(LAYERS, HEADS, NEURONS))):
        network.activate(spec)
        torch.testing.assert_close(logits(network.model, inputs), expected, **TOLERANCE)


def test_ordering_moves_weights_but_keeps_names_and_shapes(family):
    teacher, network = ordered(family, family.importance(1))
    before, after = teacher.state_dict(), network.model.state_dict()
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    assert list(before) == list(after)
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert len(changed) == family.all_pruned


def test_every_subnetwork_is_the_masked_teacher_and_the_extracted_model(family, attention):
    importance = family.importance(2)
    teacher, network = ordered(family, importance, attention=attention)
    inputs = family.inputs(seed=1)

    @settings(max_examples=8)
    @given(widths(family))
    @example(family.fit(SubnetworkSpec(0.99, (0,) * LAYERS, (0,) * LAYERS)))
    @example(family.fit(SubnetworkSpec(0.5, (HEADS, 0, 1), (0, NEURONS, 1))))
    def check(spec):
        expected = logits(masked(family, teacher, importance, spec), inputs)
        network.activate(spec)
        torch.testing.assert_close(logits(network.model, inputs), expected, **TOLERANCE)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            small = extract(network.model, spec)
        assert small.config._attn_implementation == attention
        torch.testing.assert_close(logits(small, inputs), expected, **TOLERANCE)

    check()


def test_rows_without_padding_and_layers_without_heads(family, attention, monkeypatch):
    attend = F.scaled_dot_product_attention

    def checked(query, *args, **kwargs):
        # Of no heads, cuDNN hands back None, and CUDA's kernels that share key heads divide by the number of these.
        assert query.numel()
        return attend(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", checked)
    importance, spec = family.importance(6), family.fit(SubnetworkSpec(0.8, (0, 3, 0), (9, 0, 20)))
    teacher, network = ordered(family, importance, attention=attention)
    inputs = family.inputs(padding=False)
    expected = logits(masked(family, teacher, importance, spec), inputs)
    network.activate(spec)
    torch.testing.assert_close(logits(network.model, inputs), expected, **TOLERANCE)
    torch.testing.assert_close(logits(extract(network.model, spec), inputs), expected, **TOLERANCE)


def test_ordering_and_extracting_again(family):
    first, second = family.importance(4), family.importance(5)
    teacher, network = ordered(family, first)
    architecture, inputs = architecture_for(family.family), family.inputs(seed=3)
    large = family.fit(SubnetworkSpec(0.2, (3, 4, 3), (40, 48, 33)))
    small = family.fit(SubnetworkSpec(0.9, (1, 0, 2), (5, 0, 8)))
    nested = NestedNetwork(extract(network.model, large), architecture)
    for spec in (large, small):
        expected = logits(masked(family, teacher, first, spec), inputs)
        nested.activate(spec)
        torch.testing.assert_close(logits(nested.model, inputs), expected, **TOLERANCE)
        torch.testing.assert_close(logits(extract(nested.model, spec), inputs), expected, **TOLERANCE)
    nested.activate(None)
    expected = logits(masked(family, teacher, first, large), inputs)
    torch.testing.assert_close(logits(nested.model, inputs), expected, **TOLERANCE)
    order_by_importance(network.model, architecture, second)
    torch.testing.assert_close(logits(network.model, inputs), logits(teacher, inputs), **TOLERANCE)


def test_a_narrow_network_is_ordered_by_its_own_scores(family):
    large = family.fit(SubnetworkSpec(0.2, (3, 4, 0), (40, 48, 33)))
    small = family.fit(SubnetworkSpec(0.9, (1, 2, 0), (5, 0, 8)))
    architecture, inputs = architecture_for(family.family), family.inputs(seed=3)
    _, network = ordered(family, family.importance(4))
    model = extract(network.model, large)
    importance = family.importance(5)
    for table, widths in ((importance.heads, large.heads), (importance.neurons, large.neurons)):
        for scores, kept in zip(table, widths, strict=True):
            scores[kept:] = ABSENT
    again = copy.deepcopy(model)
    order_by_importance(again, architecture, importance)
    torch.testing.assert_close(logits(again, inputs), logits(model, inputs), **TOLERANCE)
    expected = logits(masked(family, model, importance, small), inputs)
    torch.testing.assert_close(logits(extract(again, small), inputs), expected, **TOLERANCE)


SPECS = [
    SubnetworkSpec(0.9, (1, 0, 1), (5, 0, 0)),
    SubnetworkSpec(0.5, (2, 2, 1), (20, 30, 10)),
    SubnetworkSpec(0.2, (3, 4, 3), (40, 48, 33)),
]


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters()}


def test_one_step_gives_the_gradients_of_separate_passes(family):
    _, network = ordered(family, family.importance(3))
    _, separate = ordered(family, family.importance(3))
    inputs = family.inputs(seed=2)
    weights = torch.tensor([[0.3, -1.2]])
    for spec in map(family.fit, SPECS):
        separate.activate(spec)
        (separate.model(**inputs).logits * weights).sum().backward()
    embeddings = []
    attrgetter(family.embeddings)(network.model.base_model).register_forward_hook(lambda *a: embeddings.append(a[2]))
    with network.one_step([*map(family.fit, SPECS)]):
        for spec in map(family.fit, SPECS):
            network.activate(spec)
            (network.model(**inputs).logits * weights).sum().backward()
    assert all(e is embeddings[0] for e in embeddings)
    expected = gradients(separate.model)
    for name, gradient in gradients(network.model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    # The largest sub-network has no more than this, so nothing beyond it may have learned.
    attention_output, ffn_down = family.attention_outputs(network.model)[0], family.ffn_downs(network.model)[0]
    assert not matrix(attention_output, gradient=True)[:, 3 * family.head_size :].any()
    assert not matrix(ffn_down, gradient=True)[:, 40:].any()
    assert matrix(ffn_down, gradient=True)[:, :40].any(dim=0).all()


def test_one_step_gives_the_logits_of_separate_passes():
    _, network = ordered(BERT, BERT.importance(3))
    for seed in (4, 5):
        inputs = BERT.inputs(seed=seed)
        for context in (torch.no_grad, torch.enable_grad):
            with context(), network.one_step(SPECS):
                shared = []
                for spec in SPECS:
                    network.activate(spec)
                    shared.append(network.model(**inputs).logits.detach())
            for spec, values in zip(SPECS, shared, strict=True):
                network.activate(spec)
                torch.testing.assert_close(values, logits(network.model, inputs), **TOLERANCE)


def test_what_the_first_layer_makes_of_the_embeddings_is_computed_once(monkeypatch):
    _, network = ordered(BERT, BERT.importance(3))
    computed, compute = [], NestedLinear._map

    def counted(linear, *args):
        computed.append(linear)
        return compute(linear, *args)

    monkeypatch.setattr(NestedLinear, "_map", counted)
    with network.one_step(SPECS):
        for spec in SPECS:
            network.activate(spec)
            network.model(**BERT.inputs(seed=1)).logits.sum().backward()
    first, second = ([computed.count(m) for m in layer_maps(network.model, number)] for number in (0, 1))
    assert first == [1, 1, 1]
    assert second == [2, 2, 2]  # all but the sub-network without heads there


def layer_maps(model, number):
    attention = model.bert.encoder.layer[number].attention.self
    return attention.query, attention.key, attention.value


@pytest.mark.parametrize("specs", [SPECS, SPECS[::-1], [SPECS[0], SPECS[2], SPECS[1]]])
def test_passes_share_in_any_order_and_with_checkpoints(specs):
    inputs, found = BERT.inputs(seed=2), []
    for on in (False, True):
        _, network = ordered(BERT, BERT.importance(3))
        with checkpointed(network.model, architecture_for("bert"), on), network.one_step(specs if on else ()):
            for spec in specs:
                network.activate(spec)
                network.model(**inputs).logits.square().sum().backward()
        found.append(gradients(network.model))
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, found[0][name], atol=1e-5, rtol=1e-5)


def test_after_an_error_nothing_is_shared_any_longer():
    teacher, network = ordered(BERT, BERT.importance(3))
    with pytest.raises(KeyboardInterrupt), network.one_step(SPECS):
        network.model(**BERT.inputs(seed=1))
        raise KeyboardInterrupt
    assert all(linear.shared is None for linear in layer_maps(network.model, 0))  # it would keep a step's outputs
    inputs = BERT.inputs(seed=2)
    torch.testing.assert_close(logits(network.model, inputs), logits(teacher, inputs), **TOLERANCE)
