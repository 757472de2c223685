import copy
import pickle

import pytest
import torch
from torch import nn

from minidisc.extraction import extract
from minidisc.subnetworks import SubnetworkSpec
from tests.unit.families import BERT, HEADS, LAYERS, NEURONS, matrix

LARGE = SubnetworkSpec(0.3, (3, 4, 2), (30, 48, 17))
SMALL = SubnetworkSpec(0.9, (1, 0, 2), (0, 9, 16))


def test_widths_and_weights(family):
    model, spec = family.model(), family.fit(SMALL)
    small = extract(model, spec)
    full, dense = model.state_dict(), small.state_dict()
    assert list(full) == list(dense)
    narrower = 0
    for name, value in dense.items():
        whole = full[name]
        assert value.dim() == whole.dim()
        # [query | key | value] and [up | gate] are narrower in every block; GPT-2's outputs are the last dimension.
        shares, outputs = family.fused.get(name.split(".")[-2], (1,)), -1 if family.family == "gpt2" else 0
        both = [x.split([x.shape[outputs] // sum(shares) * n for n in shares], outputs) for x in (value, whole)]
        for part, source in zip(*both, strict=True):
            torch.testing.assert_close(part, source[tuple(slice(n) for n in part.shape)], rtol=0, atol=0)
        narrower += value.shape != whole.shape
    assert narrower == family.all_pruned
    for linear, heads in zip(family.attention_outputs(small), spec.heads, strict=True):
        assert matrix(linear).shape == (32, heads * family.head_size)
    for linear, neurons in zip(family.ffn_downs(small), spec.neurons, strict=True):
        assert matrix(linear).shape == (32, neurons)


def test_of_an_extracted_model(family):
    model, large, small = family.model(), family.fit(LARGE), family.fit(SMALL)
    once, twice = extract(model, small), extract(extract(model, large), small)
    assert once.config.to_dict() == twice.config.to_dict()
    inputs = family.inputs()
    with torch.no_grad():
        assert torch.equal(once(**inputs).logits, twice(**inputs).logits)


def test_full_width_is_the_model(family):
    model, inputs = family.model(), family.inputs()
    whole = extract(model, family.fit(SubnetworkSpec(0.0, (HEADS,) * LAYERS, (NEURONS,) * LAYERS)))
    with torch.no_grad():
        assert torch.equal(whole(**inputs).logits, model(**inputs).logits)


def test_attentions_have_an_entry_for_every_layer(family):
    model = family.model(attention="eager")
    small = extract(model, family.fit(SubnetworkSpec(0.5, (2, 0, 1), (9, 0, 20))))
    with torch.no_grad():
        expected, found = (m(**family.inputs(), output_attentions=True) for m in (model, small))
    names = [name for name in expected if "attentions" in name]
    assert names
    for name in names:
        assert len(found[name]) == len(expected[name])
        for whole, own in zip(expected[name], found[name], strict=True):
            assert (*own.shape[:1], *own.shape[2:]) == (*whole.shape[:1], *whole.shape[2:])
    heads = [own.shape[1] for name in names for own in found[name]]
    assert 0 in heads


def test_a_student_can_be_told_to_compute_attention_otherwise(family):
    small = extract(family.model(), family.fit(LARGE))
    small.set_attn_implementation("eager")
    with torch.no_grad():
        output = small(**family.inputs(), output_attentions=True)
    # Of the kinds of attention this one alone hands them back.
    assert len(output.get("attentions") or output.get("encoder_attentions") or ()) >= LAYERS


def test_students_can_be_pickled_and_copied(family):
    small = extract(family.model(), family.fit(SMALL))
    for again in (pickle.loads(pickle.dumps(small)), copy.deepcopy(small)):
        assert type(again) is type(small)
        assert type(again.config) is type(small.config)
        assert [type(part) for part in again.modules()] == [type(part) for part in small.modules()]
        with torch.no_grad():
            assert torch.equal(again(**family.inputs()).logits, small(**family.inputs()).logits)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_students_with_empty_layers_can_be_quantised(family):
    small, inputs = extract(family.model(), family.fit(SMALL)), family.inputs()
    linears = {name: part for name, part in small.named_modules() if isinstance(part, nn.Linear)}
    with_inputs = {name for name, linear in linears.items() if linear.in_features}
    expected, quantised = (torch.ao.quantization.quantize_dynamic(small, x) for x in (with_inputs, {nn.Linear}))
    with torch.no_grad():
        logits = expected(**inputs).logits
        assert (logits - small(**inputs).logits).abs().max() < 0.2 * logits.abs().max()
        # What is read where nothing was written is another thing each time.
        for _ in range(5):
            assert torch.equal(quantised(**inputs).logits, logits)


def test_token_classifiers(family):
    model, inputs = family.token_model(num_labels=5), family.inputs()
    whole = extract(model, SubnetworkSpec(0.0, (HEADS,) * LAYERS, (NEURONS,) * LAYERS))
    once, twice = extract(model, SMALL), extract(extract(model, LARGE), SMALL)
    assert isinstance(once, family.token_class)
    assert list(once.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        assert torch.equal(whole(**inputs).logits, model(**inputs).logits)
        assert torch.equal(once(**inputs).logits, twice(**inputs).logits)
        assert once(**inputs).logits.shape == (*inputs["input_ids"].shape, 5)


def test_other_weights_may_be_given():
    model, other = BERT.model(seed=1), BERT.model(seed=2)
    given, expected = extract(model, SMALL, other.state_dict()), extract(other, SMALL)
    for name, value in expected.state_dict().items():
        assert torch.equal(given.state_dict()[name], value)


def test_leaves_everything_else_alone():
    model = BERT.model().train()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    config = copy.deepcopy(model.config.to_dict())
    small = extract(model, SMALL)
    assert not small.training
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.fill_(7)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert model.config.to_dict() == config
    assert model.training


def test_configuration():
    names = {0: "negative", 1: "neutral", 2: "positive"}
    model = BERT.model_class(
        BERT.build_config(
            id2label=names,
            label2id={v: k for k, v in names.items()},
            hidden_dropout_prob=0.17,
            attention_probs_dropout_prob=0.23,
            classifier_dropout=0.31,
            layer_norm_eps=1e-6,
            problem_type="single_label_classification",
        )
    )
    config = extract(model, SMALL).config
    assert config.model_type == "minidisc_bert"
    assert config.heads_per_layer == [1, 0, 2]
    assert config.neurons_per_layer == [0, 9, 16]
    assert config.id2label == names
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.17, 0.23)
    assert (config.classifier_dropout, config.layer_norm_eps) == (0.31, 1e-6)
    assert config.problem_type == "single_label_classification"
    assert (config.num_attention_heads, config.intermediate_size) == (HEADS, NEURONS)


def test_wider_than_the_model_is_refused():
    with pytest.raises((RuntimeError, ValueError, AssertionError)):
        extract(extract(BERT.model(), SMALL), LARGE)
