import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, T5EncoderModel, T5ForSequenceClassification

from minidisc.modeling.t5_classifiers import EncT5Config, T5EncoderConfig
from tests.unit.families import ENCT5, T5, T5_ENCODER

FORMS = pytest.mark.parametrize("row", [T5_ENCODER, ENCT5], ids=lambda row: row.name)


def rows_of(inputs):
    """Each row alone, without its padding."""
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        yield ids[mask.bool()][None]


@torch.no_grad()
def test_the_encoders_logits_are_those_of_the_mean_state():
    model, inputs = T5_ENCODER.model(num_labels=3), T5_ENCODER.inputs()
    encoder = T5EncoderModel(model.config).eval()
    encoder.load_state_dict(model.transformer.state_dict())
    means = torch.cat([encoder(ids).last_hidden_state.mean(1) for ids in rows_of(inputs)])
    expected = means @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=0)
    unpadded = {"input_ids": inputs["input_ids"][:1]}
    torch.testing.assert_close(model(**unpadded).logits, expected[:1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_enct5_is_t5_with_the_prompt_for_the_only_decoder_token():
    model, inputs = ENCT5.model(num_labels=3), ENCT5.inputs()
    # transformers' own model, whose decoder's first token is embedded as the prompt and is the only one.
    config = T5.config(num_decoder_layers=1, feed_forward_proj=model.config.feed_forward_proj)
    other = T5ForSequenceClassification(config).eval().transformer
    other.load_state_dict(model.transformer.state_dict())
    prompt, states = model.prompt.weight[None], []
    for ids in rows_of(inputs):
        states.append(other(input_ids=ids, decoder_inputs_embeds=prompt).last_hidden_state[:, 0])
    expected = torch.cat(states) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=0)
    embedded = model.transformer.shared(inputs["input_ids"])
    found = model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@FORMS
@pytest.mark.parametrize(
    ("labels", "loss"),
    [(torch.tensor([0, 2, 1, 2]), F.cross_entropy), (torch.tensor([0.5, -1.0, 3.0, 0.1]), F.mse_loss)],
)
def test_labels_give_the_loss(row, labels, loss):
    model, inputs = row.model(num_labels=1 if labels.is_floating_point() else 3), row.inputs()
    output = model(**inputs, labels=labels)
    torch.testing.assert_close(output.loss, loss(output.logits.squeeze(-1), labels))
    first, logits = model(**inputs, labels=labels, return_dict=False)[:2]
    assert torch.equal(first, output.loss)
    assert torch.equal(logits, output.logits)


@FORMS
def test_everything_learns(row):
    model = row.model(num_labels=3)
    model(**row.inputs(), labels=torch.tensor([0, 2, 1, 2])).loss.backward()
    # A single token attends to itself whatever its query and its key are.
    alone = "decoder.block.0.layer.0.SelfAttention"
    for name, parameter in model.named_parameters():
        idle = name.endswith(row.still) or f"{alone}.q" in name or f"{alone}.k" in name
        assert bool(parameter.grad is not None and parameter.grad.any()) != idle, name


@pytest.mark.parametrize("config", [T5EncoderConfig, EncT5Config])
def test_auto_classes_know_them(config):
    small = config(d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2, vocab_size=9)
    model = AutoModelForSequenceClassification.from_config(small)
    assert type(model).config_class is config
    assert type(AutoConfig.for_model(config.model_type)) is config
    decoder = len(model.transformer.decoder.block) if hasattr(model.transformer, "decoder") else 0
    assert decoder == {"t5-encoder": 0, "t5-enct5": 1}[config.model_type] == model.config.num_decoder_layers
