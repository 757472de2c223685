import datasets
import numpy as np
import pytest
import torch

from minidisc.architectures import architecture_for
from minidisc.extraction import extract
from minidisc.nested import NestedNetwork
from minidisc.prediction import predict, predict_subnetworks
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import collator, label_array
from tests.unit.families import BERT, tagged_rows, tiny_tokenizer, training_rows

SPECS = [SubnetworkSpec(0.3, (3, 4, 2), (30, 48, 17)), SubnetworkSpec(0.9, (1, 0, 2), (0, 9, 16))]


def collate(side="right"):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    return collator(tokenizer)


def inputs_of(row):
    return {
        name: torch.tensor([row[name]]) for name in ("input_ids", "attention_mask", "token_type_ids") if name in row
    }


def one_by_one(model, rows, outputs):
    """What the model says of each word, a row at a time and so without any padding."""
    result = []
    for row in rows:
        with torch.no_grad():
            logits = model(**inputs_of(row)).logits[0].numpy()
        unseen = np.full(logits.shape[-1], -np.inf)
        result.append(np.array([unseen if token < 0 else logits[token] for token in row["first_tokens"]])[:, outputs])
    return result


def assert_rows_equal(actual, expected):
    assert actual.dtype == object
    assert actual.shape == (len(expected),)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_logits_of_words(family, side, batch_size):
    model = family.token_model(num_labels=4, dropout=0.3).train()
    rows = tagged_rows(family, [3, 1, 4, 4, 2])
    # RoBERTa alone counts positions from the mask, so that padding on the left does not move its tokens.
    if side == "left" and family.family != "roberta":
        rows = rows.select([2, 2, 2])
    outputs = [2, 0, 3]
    logits = predict(model, rows, collate(side), batch_size, outputs)
    assert not model.training
    assert_rows_equal(logits, one_by_one(model, rows, outputs))
    assert [len(row) for row in logits] == [len(row) for row in label_array(rows)]


def test_padding_on_the_left_moves_the_words():
    """A model that tells nothing but each token's own id makes the positions visible."""

    class Echo:
        device = torch.device("cpu")

        def eval(self):
            return self

        def __call__(self, input_ids, **_):
            return type("Output", (), {"logits": input_ids[..., None].repeat(1, 1, 2)})

    rows = tagged_rows(BERT, [3, 1, 4])
    for side in ("right", "left"):
        logits = predict(Echo(), rows, collate(side), 2)
        for row, values in zip(rows, logits, strict=True):
            assert values[:, 0].tolist() == [row["input_ids"][token] for token in row["first_tokens"]]


def test_words_without_a_token_have_logits_of_minus_infinity():
    rows = tagged_rows(BERT, [3, 2])
    columns = {name: rows[name][:] for name in rows.column_names}
    columns["first_tokens"][0][1] = columns["first_tokens"][1][1] = -1
    rows = datasets.Dataset.from_dict(columns)
    model = BERT.token_model(num_labels=4)
    logits = predict(model, rows, collate(), 2)
    assert_rows_equal(logits, one_by_one(model, rows, slice(None)))
    assert np.isneginf(logits[0]).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("head", ["sentences", "words"])
def test_subnetworks_are_their_dense_models(family, head):
    if head == "words":
        model, rows = family.token_model(num_labels=4), tagged_rows(family, [3, 1, 4, 4, 2])
    else:
        model, rows = family.model(num_labels=4), training_rows(family, [5, 9, 3, 3, 11])
    specs = SPECS if head == "words" else [family.fit(spec) for spec in SPECS]
    dense = [predict(extract(model, spec), rows, collate(), 2, [3, 1]) for spec in specs]
    network = NestedNetwork(model, architecture_for(family.family))
    nested = predict_subnetworks(network, specs, rows, collate(), 3, [3, 1])
    for a, b in zip(nested, dense, strict=True):
        if head == "words":
            assert_rows_equal(a, list(b))
        else:
            assert a.shape == (5, 2)
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_logits_of_sentences_stand_in_the_rows_order():
    model, rows = BERT.model(num_labels=3), training_rows(BERT, [5, 9, 3, 3, 11])
    with torch.no_grad():
        expected = np.concatenate([model(**inputs_of(row)).logits.numpy() for row in rows])
    np.testing.assert_allclose(predict(model, rows, collate(), 2), expected, atol=1e-5)
    np.testing.assert_allclose(predict(model, rows, collate(), 2, [2, 0]), expected[:, [2, 0]], atol=1e-5)
