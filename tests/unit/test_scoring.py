import dataclasses
from types import SimpleNamespace

import datasets
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from minidisc.architectures import architecture_for
from minidisc.errors import UserError
from minidisc.measure import Shape
from minidisc.scoring import Scorer
from minidisc.tasks import Task, collator
from tests.unit.families import BERT, tagged_rows, tiny_tokenizer, training_rows

HEADS, SIZE, LAYERS, ROWS = 4, 8, 3, 1024
TASK = Task("t", "regression", ("text",), "label", None, False, ("pearson",))


def scorer_of(model, rows, outputs=None, task=TASK, **settings):
    architecture = architecture_for("bert")
    return Scorer(
        settings=SimpleNamespace(**{"batch_size": 16, "gradient_checkpointing": False, **settings}),
        architecture=architecture,
        shape=Shape.of(model, architecture),
        task=task,
        outputs=outputs,
        rows=rows,
        collate=collator(tiny_tokenizer()),
        device=torch.device("cpu"),
        note=lambda _: None,
    )


@pytest.mark.parametrize(("checkpointing", "runs"), [(False, 1), (True, 2)])
def test_with_checkpointing_layers_run_again(tmp_path, checkpointing, runs):
    model, seen = BERT.model(), []
    scorer = scorer_of(
        model, training_rows(BERT, [5, 9, 3]), importance_on="labels", gradient_checkpointing=checkpointing
    )
    layer = BERT.layers_of(model)[1]
    layer.attention.self.query.register_forward_hook(lambda *_: seen.append(1))
    scorer.importance(model, scorer.shape.full(), tmp_path / "importance.safetensors")
    assert len(seen) == runs


def test_a_damaged_file_of_scores_is_named(tmp_path):
    model, file = BERT.model(), tmp_path / "importance.safetensors"
    file.write_bytes(b"half")
    scorer = scorer_of(model, training_rows(BERT, [5, 9, 3]), importance_on="labels")
    with pytest.raises(UserError, match=f"{file} is damaged; delete it and go on"):
        scorer.importance(model, scorer.shape.full(), file)


def network():
    """A regression, nearly odd: where all tokens change their sign, of 10 … 19 to 20 … 29, so does the prediction.

    The first head of every layer adds the same to all rows, and little.
    """
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=60,
            hidden_size=HEADS * SIZE,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=40,
            num_labels=1,
        )
    ).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "position_embeddings" in name or "token_type" in name:
                weight.zero_()
            elif "LayerNorm" not in name:
                # GELU is not odd, but nearly so where it is given next to nothing.
                weight.normal_(0, 3e-4 if "intermediate" in name else 0.3)
        words = model.bert.embeddings.word_embeddings.weight
        words[20:30] = -words[10:20]
        for layer in model.bert.encoder.layer:
            layer.attention.self.value.weight[:SIZE] = 0
            layer.attention.self.value.bias[:SIZE] = 0.02
    return model


def fisher(model, ids):
    """The root of the sum over rows of the squared gradient of a row's prediction with respect to each head's mask."""
    masks = [torch.ones(len(ids), 1, HEADS, requires_grad=True) for _ in range(LAYERS)]
    hooks = [
        layer.attention.output.dense.register_forward_pre_hook(
            lambda _, args, mask=mask: (args[0] * mask.repeat_interleave(SIZE, -1),)
        )
        for layer, mask in zip(model.bert.encoder.layer, masks, strict=True)
    ]
    gradients = torch.stack(torch.autograd.grad(model(ids).logits.sum(), masks))
    for hook in hooks:
        hook.remove()
    return gradients.square().sum((1, 2)).sqrt()


def test_on_its_own_predictions_heads_of_a_regression_count_that_part_the_rows(tmp_path):
    model = network()
    positive = torch.randint(10, 20, (ROWS // 2, 6), generator=torch.Generator().manual_seed(1))
    ids = torch.stack([positive, positive + 10], dim=1).flatten(0, 1)
    mask = torch.ones_like(ids).tolist()
    columns = {"input_ids": ids.tolist(), "attention_mask": mask, "length": [6] * ROWS, "label": [0.0] * ROWS}
    scorer = scorer_of(model, datasets.Dataset.from_dict(columns), importance_on="teacher")
    importance, _ = scorer.importance(model, scorer.shape.full(), tmp_path / "importance.safetensors")
    truth = fisher(model, ids)
    # 64 batches tell a score to about a tenth of it.
    for found, true in zip(importance.heads, truth, strict=True):
        torch.testing.assert_close(found, true / true.norm(), atol=0.15, rtol=0)


def test_labels_are_of_the_outputs_that_stand_for_the_datas_classes(tmp_path):
    rows, found = training_rows(BERT, [5, 9, 3, 7]), []
    assert set(rows["label"]) == {0, 1}
    model, alike = BERT.model(num_labels=3), BERT.model(num_labels=2)
    # The same network, whose outputs are the data's classes as they are.
    state = model.state_dict()
    alike.load_state_dict({**state, **{n: state[n][[2, 0]] for n in ("classifier.weight", "classifier.bias")}})
    for name, network, outputs in (("one", model, [2, 0]), ("other", alike, None)):
        scorer = scorer_of(network, rows, outputs, importance_on="labels")
        found.append(scorer.importance(network, scorer.shape.full(), tmp_path / name)[0])
    torch.testing.assert_close(found[0].heads, found[1].heads)
    torch.testing.assert_close(found[0].neurons, found[1].neurons)


def test_a_networks_own_tags_are_those_that_it_gives_most(tmp_path):
    model, rows = BERT.token_model(seed=1, num_labels=3), tagged_rows(BERT, [4, 2, 3])
    task = dataclasses.replace(TASK, kind="token-classification", label_names=("a", "b", "c"))
    # The model's last output is the first class, and so on.
    found = scorer_of(model, rows, [2, 0, 1], task)._labelled_by(model)["label"][:]
    classes = {2: 0, 0: 1, 1: 2}
    for row, tags in zip(rows, found, strict=True):
        with torch.no_grad():
            inputs = {name: torch.tensor([row[name]]) for name in ("input_ids", "token_type_ids")}
            logits = model(**inputs).logits[0]
        assert tags == [classes[int(logits[token].argmax())] for token in row["first_tokens"]]
