"""Files whose weights are more, or fewer, than those of the model in config.json."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Data2VecTextConfig, Data2VecTextForSequenceClassification, T5ForConditionalGeneration

from minidisc.errors import UserError
from minidisc.extraction import extract, save_small
from minidisc.modeling.t5_classifiers import EncT5Config
from minidisc.subnetworks import SubnetworkSpec
from minidisc.teachers import load_config, load_model
from tests.unit.families import (
    ALBERT,
    BERT,
    DEBERTA_V2,
    ENCT5,
    GPT2,
    HIDDEN,
    LAYERS,
    LLAMA,
    LLAMA_MULTI_HEAD,
    MATRIX,
    T5,
    tiny_tokenizer,
)


def saved(model, folder, add=(), **config):
    """A folder with more weights than the model's, and another config.json."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights |= {name: torch.ones(3, 5) for name in add}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return str(folder)


LAST = LAYERS - 1
LOST = {
    "layers": (BERT, {"num_hidden_layers": 2}, (), 16, f"bert.encoder.layer.{LAST}.attention.output.LayerNorm.bias"),
    # One bias of each is passed over by transformers itself, for its name.
    "GPT-2": (GPT2, {"n_layer": 2}, (), 11, f"transformer.h.{LAST}.attn.c_attn.weight"),
    "groups": (
        ALBERT,
        {"num_hidden_groups": 2},
        (),
        16,
        f"albert.encoder.albert_layer_groups.{LAST}.albert_layers.0.attention.LayerNorm.bias",
    ),
    "decoder": (
        T5,
        {"num_decoder_layers": 1},
        (),
        13,
        "transformer.decoder.block.1.layer.0.SelfAttention.k.weight",
    ),
    "biases": (
        LLAMA_MULTI_HEAD,
        {"attention_bias": False},
        (),
        4 * LAYERS,
        "model.layers.0.self_attn.k_proj.bias",
    ),
    "relative positions": (
        BERT,
        {"position_embedding_type": "relative_key"},
        [f"bert.encoder.layer.{i}.attention.self.distance_embedding.weight" for i in range(LAYERS)],
        LAYERS,
        "bert.encoder.layer.0.attention.self.distance_embedding.weight",
    ),
    "embeddings": (
        LLAMA,
        {},
        ["model.embed_tokens.expand.weight"],
        1,
        "model.embed_tokens.expand.weight",
    ),
    # As the base model alone is saved.
    "no prefix": (BERT, {}, ["encoder.layer.10.output.dense.bias"], 1, "encoder.layer.10.output.dense.bias"),
}


@pytest.mark.parametrize(("row", "config", "add", "count", "first"), LOST.values(), ids=LOST)
def test_weights_that_the_configuration_has_no_place_for(tmp_path, row, config, add, count, first):
    folder = saved(row.model(), tmp_path, add, **config)
    for new_head in (False, True):
        with pytest.raises(UserError, match=re.escape(f"hold {count} that")) as caught:
            load_model(folder, new_head=new_head)
        assert f"(the first: {first})" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", MATRIX, ids=lambda row: row.name)
def test_another_head_and_what_older_versions_saved_along_are_no_loss(tmp_path, row, caplog):
    model = row.model()
    prefix, layers = model.base_model_prefix, row.layers
    buffers = {
        "gpt2": ["attn.bias", "attn.masked_bias", "crossattention.bias"],
        "gpt_neox": ["attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"],
        "t5": [],
    }.get(row.family, ["self_attn.rotary_emb.inv_freq"])
    add = [f"{prefix}.{layers}.{i}.{name}" for i in range(LAYERS) for name in buffers]
    add += [f"{prefix}.embeddings.position_ids", f"{prefix}.embeddings.token_type_ids"] * (
        row.embeddings == "embeddings"
    )
    add += ["lm_head.weight", "cls.predictions.decoder.weight", "predictions.dense.bias", "qa_outputs.weight"]
    add += [f"{prefix}.pooler.extra.weight"]
    if row.family == "t5":
        add += ["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"]
    loaded = load_model(saved(model, tmp_path / "model", add))
    assert not loaded.fresh
    student = extract(model, row.fit(SubnetworkSpec(0.5, (2, 1, 2), (9, 8, 9))))
    save_small(student, tiny_tokenizer(), tmp_path / "student")
    assert not load_model(str(tmp_path / "student")).fresh
    if row.token_class:
        load_model(str(tmp_path / "model"), kind="token-classification", new_head=True)
        words = saved(row.token_model(), tmp_path / "words")
        if row.family != "t5":  # it has no decoder
            load_model(words, kind="classification", new_head=True)
    assert not [record for record in caplog.records if record.name == "minidisc"]


def test_enct5_takes_one_layer_of_another_t5s_decoder(tmp_path, caplog):
    """A T5's own name for its heads is another, so that what is left of it has no classifier."""
    T5ForConditionalGeneration(T5.config(num_decoder_layers=3)).save_pretrained(tmp_path / "t5")
    tiny_tokenizer().save_pretrained(tmp_path / "t5")
    values = load_config(str(tmp_path / "t5")).to_dict()
    config = EncT5Config(**{k: v for k, v in values.items() if k not in ("model_type", "num_decoder_layers")})
    loaded = load_model(str(tmp_path / "t5"), config=config, new_head=True)
    assert loaded.fresh == ["classifier.bias", "classifier.weight", "prompt.weight"]
    assert len(loaded.model.transformer.decoder.block) == 1
    assert not [record for record in caplog.records if record.name == "minidisc"]
    # Of one that was trained, all layers count.
    folder = saved(ENCT5.model(num_decoder_layers=2), tmp_path / "enct5", num_decoder_layers=1)
    with pytest.raises(UserError, match=r"the first: transformer\.decoder\.block\.1\."):
        load_model(folder)


@pytest.mark.parametrize(
    ("row", "config", "add", "first"),
    [
        (DEBERTA_V2, {"conv_kernel_size": 0}, [], "deberta.encoder.conv.LayerNorm.bias"),
        (
            BERT,
            {},
            ["bert.encoder.layer.0.crossattention.self.query.weight"],
            "bert.encoder.layer.0.crossattention.self.query.weight",
        ),
        (BERT, {}, ["bert.encoder.layer.1.scale"], "bert.encoder.layer.1.scale"),
    ],
    ids=["beside the layers", "an encoder that was a decoder", "perhaps no parameter"],
)
def test_what_may_be_a_loss_is_told(tmp_path, caplog, row, config, add, first):
    load_model(saved(row.model(), tmp_path, add, **config))
    (message,) = [record.getMessage() for record in caplog.records if record.name == "minidisc"]
    assert f"that are left out, since its config.json has no place for them (the first: {first})" in message


@pytest.mark.parametrize(
    ("row", "config", "words"),
    [
        (
            BERT,
            {"num_hidden_layers": 5},
            "lack 32 of the layers and embeddings that its config.json speaks of (the first: bert.encoder.layer.3.",
        ),
        (LLAMA, {"attention_bias": True}, f"lack {4 * LAYERS} of"),
        (ALBERT, {"num_hidden_groups": 4}, "lack 16 of"),
    ],
    ids=["layers", "biases", "groups"],
)
def test_a_body_that_is_drawn_by_chance(tmp_path, row, config, words):
    folder = saved(row.model(), tmp_path, **config)
    for new_head in (False, True):
        with pytest.raises(UserError, match=re.escape(words)) as caught:
            load_model(folder, new_head=new_head)
        assert "\n" not in str(caught.value)


def test_a_pooler_and_a_classifier_may_be_drawn_by_chance(tmp_path):
    folder = saved(BERT.token_model(), tmp_path)
    names = ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
    assert load_model(folder, kind="classification").fresh == names


def test_a_family_that_is_not_known(tmp_path, caplog):
    """Of its layers nothing is known but that they are in the body."""
    torch.manual_seed(0)
    config = Data2VecTextConfig(
        vocab_size=60,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=32,
    )
    model = Data2VecTextForSequenceClassification(config)
    whole = saved(model, tmp_path / "whole", ["data2vec_text.pooler.dense.weight", "lm_head.weight"])
    assert not load_model(whole).fresh
    assert not [record for record in caplog.records if record.name == "minidisc"]
    load_model(saved(model, tmp_path / "fewer", num_hidden_layers=1))
    assert "hold 16 that are left out" in caplog.text
    more = saved(model, tmp_path / "more", num_hidden_layers=3)
    with pytest.raises(UserError, match=r"lack 16 of .* \(the first: data2vec_text\.encoder\.layer\.2\."):
        load_model(more)
    load_model(more, new_head=True)


def sharded(folder, name=None):
    """A folder of several files of weights; its index names another one for all of them, if one is given."""
    BERT.model().save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(folder)
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    assert len({*index["weight_map"].values()}) > 1
    if name is not None:
        file.write_text(json.dumps({**index, "weight_map": dict.fromkeys(index["weight_map"], name)}))
    return folder


def test_weights_in_several_files_are_loaded(tmp_path):
    expected = load_model(str(sharded(tmp_path / "teacher"))).model.state_dict()
    found = {}
    for file in (tmp_path / "teacher").glob("*.safetensors"):
        found |= load_file(file)
    assert all(torch.equal(expected[name], value) for name, value in found.items())


@pytest.mark.parametrize("name", ["../private.safetensors", "{}/private.safetensors", "weights.bin", 5])
def test_an_index_names_nothing_but_safetensors_of_its_folder(tmp_path, name):
    name = name.format(tmp_path) if isinstance(name, str) else name
    folder = sharded(tmp_path / "teacher", name)
    weights = BERT.model().state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, tmp_path / "private.safetensors")
    torch.save(weights, folder / "weights.bin")
    with pytest.raises(UserError, match=re.escape(f"names {name!r} as a file of weights; allowed are .safetensors")):
        load_model(str(folder))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 5}'])
def test_an_index_that_is_none(tmp_path, content):
    folder = sharded(tmp_path / "teacher")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match="is no index of weights; give the folder as save_pretrained wrote it"):
        load_model(str(folder))


def test_config_json_names_no_pickle_either(tmp_path):
    folder = Path(saved(BERT.model(), tmp_path / "teacher", transformers_weights="weights.bin"))
    torch.save(BERT.model().state_dict(), folder / "weights.bin")
    with pytest.raises(UserError, match=re.escape("config.json of") + ".* names 'weights.bin' as a file of weights"):
        load_model(str(folder))
