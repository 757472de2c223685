"""Decoders as language models: every family that has them, from nesting to generation."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from minidisc.architectures import architecture_for
from minidisc.extraction import extract, save_small
from minidisc.importance import compute_importance
from minidisc.losses import task_loss
from minidisc.measure import Shape
from minidisc.modeling.classes import CODE_FILE
from minidisc.modeling.narrow import counting_layers
from minidisc.nested import NestedNetwork, order_by_importance
from minidisc.subnetworks import SubnetworkSpec, full_width
from tests.unit.families import (
    GEMMA2,
    GEMMA3,
    HEADS,
    HIDDEN,
    LAYERS,
    LLAMA,
    MATRIX,
    NEURONS,
    PHI3,
    VOCABULARY,
    tiny_tokenizer,
)
from tests.unit.test_importance import mask_gradients
from tests.unit.test_nested import logits, masked

FAMILIES = [family for family in MATRIX if family.causal_class]
# Every layer that must have a head in some family has one; the last has none.
SPEC = SubnetworkSpec(0.8, (2, 1, 0), (0, 11, 24))
# Gemma's norms and embeddings make logits, and what is rounded in them, ten times as large as a classifier's.
TOLERANCE = {"atol": 1e-4, "rtol": 0}
UNIFORM = SubnetworkSpec(0.5, (2,) * LAYERS, (24,) * LAYERS)


def parametrize(function):
    pairs = [pytest.param(row, kind, id=f"{row.name}-{kind}") for row in FAMILIES for kind in row.attentions]
    return pytest.mark.parametrize(("decoder", "attention"), pairs)(function)


decoders = pytest.mark.parametrize("decoder", FAMILIES, ids=[family.name for family in FAMILIES])


def ordered(decoder, **changes):
    importance = decoder.importance(2)
    teacher = decoder.causal_model(**changes)
    model = copy.deepcopy(teacher)
    order_by_importance(model, architecture_for(decoder.family), importance)
    return teacher, importance, NestedNetwork(model, architecture_for(decoder.family))


@parametrize
def test_every_subnetwork_is_the_masked_teacher_and_the_extracted_model(decoder, attention):
    teacher, importance, network = ordered(decoder, attention=attention)
    inputs = decoder.inputs(seed=1, padding=False)
    torch.testing.assert_close(logits(network.model, inputs), logits(teacher, inputs), **TOLERANCE)
    for spec in (SPEC, UNIFORM, SubnetworkSpec(0.1, (1, 1, 4), (NEURONS, 0, 1)), full_width(LAYERS, HEADS, NEURONS)):
        expected = logits(masked(decoder, teacher, importance, spec), inputs)
        network.activate(spec)
        torch.testing.assert_close(logits(network.model, inputs), expected, **TOLERANCE)
        torch.testing.assert_close(logits(extract(network.model, spec), inputs), expected, **TOLERANCE)


@decoders
def test_scores_are_the_gradients_of_masks(decoder):
    model = decoder.causal_model()
    batches = []
    for seed in range(2):
        inputs = decoder.inputs(seed=seed, padding=False)
        batches.append({**inputs, "labels": F.pad(inputs["input_ids"][:, 1:], (0, 1), value=-100)})

    def library_loss(values, labels):
        # As transformers has it: each token's logits against the next token.
        return F.cross_entropy(values[:, :-1].reshape(-1, VOCABULARY), labels[:, :-1].reshape(-1))

    importance = compute_importance(model, architecture_for(decoder.family), batches, task_loss)
    heads, neurons = mask_gradients(decoder, model, batches, library_loss)
    np.testing.assert_allclose(importance.heads.numpy(), heads, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(importance.neurons.numpy(), neurons, rtol=1e-5, atol=1e-6)


@parametrize
def test_decoding_from_the_cache_is_the_full_pass(decoder, attention):
    _, _, network = ordered(decoder, attention=attention)
    student = extract(network.model, SPEC)
    ids = decoder.inputs(rows=3, length=12, padding=False)["input_ids"]
    # A prompt of several tokens, then one by one, past the window where there is one.
    with torch.no_grad():
        expected, cache, found = student(ids).logits, None, []
        for start, stop in ((0, 4), *((i, i + 1) for i in range(4, 12))):
            output = student(ids[:, start:stop], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            found.append(output.logits)
    torch.testing.assert_close(torch.cat(found, 1), expected, **TOLERANCE)


@decoders
@pytest.mark.parametrize("sample", [False, True])
def test_generation_with_and_without_the_cache(decoder, sample):
    _, _, network = ordered(decoder)
    student = extract(network.model, SPEC)
    prompt = decoder.inputs(rows=3, length=4, padding=False)
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        texts.append(
            student.generate(**prompt, max_new_tokens=8, do_sample=sample, use_cache=use_cache, eos_token_id=None)
        )
    assert texts[0].shape == (3, 12)
    assert torch.equal(*texts)


@decoders
@pytest.mark.parametrize(
    "way", [{"prompt_lookup_num_tokens": 2}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=str
)
def test_generation_with_a_layer_without_heads_is_that_without_a_cache(decoder, way):
    student = extract(decoder.causal_model(max_position_embeddings=40), SPEC)
    # Prompts are looked up for one text alone.
    prompt = decoder.inputs(rows=1 if "prompt_lookup_num_tokens" in way else 3, length=7, padding=False)
    plain = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    expected = student.generate(**prompt, **plain, use_cache=False, num_beams=way.get("num_beams", 1))
    assert torch.equal(student.generate(**prompt, **plain, **way), expected)


@decoders
def test_a_layer_that_counts_tokens_must_have_a_head(decoder):
    model = decoder.causal_model()
    for layer in counting_layers(model.config):
        heads = [HEADS] * LAYERS
        heads[layer] = 0
        with pytest.raises(ValueError, match=f"layer {layer} has no attention head"):
            extract(model, SubnetworkSpec(0.1, tuple(heads), (NEURONS,) * LAYERS))


LONG_ROPE = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "partial_rotary_factor": 1.0,
        "short_factor": [1.0, 1.1],
        "long_factor": [1.0, 2.0],
        "original_max_position_embeddings": 8,
    },
    "original_max_position_embeddings": 8,
}


@pytest.mark.parametrize(
    ("decoder", "heads", "changes"),
    [(LLAMA, 3, {}), (GEMMA2, 3, {}), (GEMMA3, 3, {}), (PHI3, 2, LONG_ROPE)],
    ids=["llama", "gemma2", "gemma3", "phi3"],
)
def test_heads_that_the_librarys_own_class_refuses_are_saved_with_the_code(decoder, heads, changes, tmp_path):
    student = extract(decoder.causal_model(**changes), SubnetworkSpec(0.3, (heads,) * LAYERS, (24,) * LAYERS))
    save_small(student, tiny_tokenizer(), tmp_path / "student")
    assert (tmp_path / "student" / CODE_FILE).exists()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert type(again) is type(student)
    inputs = decoder.inputs(padding=False)
    torch.testing.assert_close(logits(again, inputs), logits(student, inputs))


@decoders
def test_sizes_and_flops(decoder):
    model = decoder.causal_model()
    shape = Shape.of(model, architecture_for(decoder.family))
    for spec in (SPEC, UNIFORM):
        assert shape.sizes(spec).all == sum(p.numel() for p in extract(model, spec).parameters())
    body = Shape.of(decoder.model(), architecture_for(decoder.family))
    chosen = shape.forward_flops(SPEC, 3, 7) - body.forward_flops(SPEC, 3, 7)
    assert chosen == 3 * 7 * 2 * HIDDEN * VOCABULARY


def test_tied_weights_stay_tied():
    decoder = FAMILIES[0]
    student = extract(decoder.causal_model(tie_word_embeddings=True), SPEC)
    assert student.lm_head.weight is student.model.embed_tokens.weight
