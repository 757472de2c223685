import math

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.prediction import predict
from minidisc.tasks import CAUSAL_LM, collator, encoding, hold_out, label_array, load_data, loading, pack, read_table
from minidisc.tasks.documents import read_documents
from minidisc.tasks.encoding import IGNORED
from minidisc.tasks.sources import Source
from tests.unit.families import tiny_tokenizer


def plain_tokenizer(end="<end>", around=""):
    """Words that are their own number, nothing around a text unless it is said, and no padding."""
    words = {f"w{i}": i for i in range(20)} | {"<end>": 20, "<begin>": 21}
    core = Tokenizer(WordLevel(words, unk_token="w0"))
    core.pre_tokenizer = Whitespace()
    if around:
        core.post_processor = TemplateProcessing(single=around, special_tokens=[("<end>", 20), ("<begin>", 21)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end)


def documents(*texts, cut=None):
    return Dataset.from_dict({"text_a": list(texts)} | ({"cut": cut} if cut else {}))


def stream(rows):
    return [token for row in rows["input_ids"] for token in row]


def test_rows_are_cut_from_one_stream():
    rows = pack(documents("w1 w2 w3", "w4", "w5 w6 w7 w8"), plain_tokenizer(), 4)
    # By hand: 1 2 3 E 4 E 5 6 7 8 E, in fours; what is left is no row.
    assert rows["input_ids"][:] == [[1, 2, 3, 20], [4, 20, 5, 6]]
    assert rows["label"][:] == [[2, 3, 20, IGNORED], [20, 5, 6, IGNORED]]
    assert rows["attention_mask"][:] == [[1] * 4] * 2
    assert rows["length"][:] == [4, 4]


def test_documents_of_slices_are_those_of_one_call(monkeypatch, tokenised):
    ours = plain_tokenizer()
    monkeypatch.setattr(encoding, "_SLICE", 2)
    # The second document's end, which it has already, is no second one; the third was cut.
    rows = pack(documents("", "w1 w2 <end>", "w3", "w4 w5", "w6 w7", cut=[False, False, True, False, False]), ours, 2)
    assert tokenised == [2, 2, 1]
    assert rows["input_ids"][:] == [[20, 1], [2, 20], [3, 4], [5, 20], [6, 7]]
    assert rows["label"][:] == [[1, IGNORED], [20, IGNORED], [IGNORED, IGNORED], [20, IGNORED], [7, IGNORED]]
    assert [str(rows.data.column(name).type) for name in ("input_ids", "attention_mask")] == [
        "list<item: int32>",
        "list<item: int8>",
    ]


def test_a_tokenizer_that_marks_texts_itself_needs_no_end():
    rows = pack(documents("w5 w6", "w7"), tiny_tokenizer(), 3)
    assert rows["input_ids"][:] == [[2, 5, 6], [3, 2, 7]]


def test_a_document_ends_also_if_the_tokenizer_only_begins_it():
    """As Llama's, Mistral's and Gemma's: a model has seen that an end comes behind a document, never a beginning."""
    rows = pack(documents("w1 w2", "w3", "w4"), plain_tokenizer(around="<begin> $A"), 5)
    # By hand: B 1 2 E B 3 E B 4 E, in fives.
    assert rows["input_ids"][:] == [[21, 1, 2, 20, 21], [3, 20, 21, 4, 20]]
    assert rows["label"][:] == [[1, 2, 20, 21, IGNORED], [20, 21, 4, 20, IGNORED]]


@pytest.mark.parametrize(
    ("around", "end", "texts", "expected"),
    [
        ("<begin> $A <end>", "<end>", ["w1", "w2"], [21, 1, 20, 21, 2, 20]),
        ("", "<end>", ["w1 <end>", "w2"], [1, 20, 2, 20]),
        # As OPT's: what begins a text is what ends one.
        ("<end> $A", "<end>", ["w1 w2", "w3"], [20, 1, 2, 20, 3]),
        ("<begin> $A", None, ["w1", "w2"], [21, 1, 21, 2]),
    ],
)
def test_no_document_ends_twice_nor_without_an_end_token(around, end, texts, expected):
    assert stream(pack(documents(*texts), plain_tokenizer(end, around), len(expected))) == expected


@pytest.mark.parametrize(
    ("around", "expected", "labels"),
    [
        ("<begin> $A", [21, 1, 2, 21, 3, 20, 21, 4], [1, 2, IGNORED, 3, 20, 21, 4, IGNORED]),
        ("<begin> $A <end>", [21, 1, 2, 21, 3, 20, 21, 4], [1, 2, IGNORED, 3, 20, 21, 4, IGNORED]),
        ("<end> $A", [20, 1, 2, 20, 3, 20, 4], [1, 2, IGNORED, 3, 20, 4, IGNORED]),
        ("", [1, 2, 3, 20, 4], [2, IGNORED, 20, 4, IGNORED]),
    ],
)
def test_a_document_that_was_cut_has_no_end(around, expected, labels):
    cut = documents("w1 w2", "w3", "w4", cut=[True, False, True])
    rows = pack(cut, plain_tokenizer(around=around), len(expected))
    assert rows["input_ids"][:] == [expected]
    assert rows["label"][:] == [labels]


def test_rows_may_say_that_they_were_cut(tmp_path):
    lines = ['{"text": "w1", "cut_at_length": true}', '{"text": " "}', '{"text": "w2"}', '{"text": "w3"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    settings = DataSettings(task=CAUSAL_LM, validation_file=str(tmp_path / "a.jsonl"))
    rows = load_data(settings, need_train=False).validation
    assert rows.to_dict() == {"text_a": ["w1", "w2", "w3"], "cut": [True, False, False]}


def test_another_way_to_make_tokens_is_another_run(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')

    def fingerprint(task):
        return load_data(
            DataSettings(task=task, validation_file=str(tmp_path / "a.jsonl")), need_train=False
        ).fingerprint

    before = {task: fingerprint(task) for task in (CAUSAL_LM, "classification")}
    monkeypatch.setattr(loading, "_ENCODING", {})
    assert fingerprint(CAUSAL_LM) != before[CAUSAL_LM]
    assert fingerprint("classification") == before["classification"]


def blank_corpus(folder, name):
    """Twenty documents, and three without text."""
    texts = ["", *(f"w{i}" for i in range(10)), " \n\t", None, *(f"w{i}" for i in range(10, 20))]
    table = pd.DataFrame({"text": texts})
    if name.endswith("parquet"):
        table.to_parquet(folder / name)
    else:
        table.to_json(folder / name, orient="records", lines=True)
    return str(folder / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_documents_without_text_are_left_out(tmp_path, caplog, name):
    file = blank_corpus(tmp_path, name)
    data = load_data(DataSettings(task=CAUSAL_LM, train_file=file), need_validation=False)
    assert data.train["text_a"][:] == [f"w{i}" for i in range(20)]
    lines = [record.getMessage() for record in caplog.records if record.name == "minidisc"]
    assert lines == [f"{file}: 3 documents without text are left out."]


def test_a_corpus_of_blanks_alone_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": " "}\n{"text": null}\n')
    with pytest.raises(UserError, match=r"a\.jsonl has no document with text in it"):
        load_data(DataSettings(task=CAUSAL_LM, validation_file=str(tmp_path / "a.jsonl")), need_train=False)


def test_what_is_no_text_is_refused_with_its_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": "a"}\n{"text": 5}\n')
    with pytest.raises(UserError, match=r"1 row \(row 3\) has no text in column 'text'"):
        load_data(DataSettings(task=CAUSAL_LM, validation_file=str(tmp_path / "a.jsonl")), need_train=False)


def test_batches_need_no_padding_token():
    tokenizer = plain_tokenizer()
    rows = pack(documents("w1 w2 w3 w4 w5 w6 w7"), tokenizer, 4)
    batch = collator(tokenizer)([rows[1], rows[0]])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 20], [1, 2, 3, 4]]
    assert batch["labels"].tolist() == [[6, 7, 20, IGNORED], [2, 3, 4, IGNORED]]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_too_little_text():
    with pytest.raises(UserError, match="the 1 documents have 3 tokens, too few for a row of 4"):
        pack(documents("w1 w2"), plain_tokenizer(), 4)


def test_scores_are_those_of_transformers(tmp_path):
    (tmp_path / "text.txt").write_text(" ".join(f"w{(i * i) % 19}" for i in range(120)) + "\n\nw3 w4\n" * 20)
    data = load_data(DataSettings(task=CAUSAL_LM, validation_file=str(tmp_path / "text.txt")), need_train=False)
    tokenizer = plain_tokenizer()
    rows = pack(data.validation, tokenizer, 16)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=22, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    ).eval()
    found = data.task.evaluate(predict(model, rows, collator(tokenizer), 4), label_array(rows))
    losses, right = [], []
    for ids in torch.tensor(rows["input_ids"][:]):
        with torch.no_grad():
            output = model(ids[None], labels=ids[None])
        losses.append(output.loss.item())
        right += (output.logits[0, :-1].argmax(-1) == ids[1:]).tolist()
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert found["next_token_accuracy"] == found["metric"] == pytest.approx(np.mean(right))
    assert 0 < found["metric"] < 1


def test_a_diverged_model_is_found_out():
    source = Source(pd.DataFrame({"text": ["a b"]}), "x", "x", {})
    task = read_documents(DataSettings(), {"train": source})[0]
    with pytest.raises(FloatingPointError, match="1 of 2 rows"):
        task.evaluate(np.array([[3, 1, 2.0], [3, 1, np.nan]]), np.zeros((2, 4)))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("one\ntwo\n\nthree\n", ["one\ntwo", "three"]),
        ("one\r\n\r\n  \r\ntwo", ["one", "two"]),
        ("one\ntwo\n", ["one", "two"]),
        ("\n\none", ["one"]),
    ],
)
def test_plain_text(tmp_path, text, rows):
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert read_table(tmp_path / "a.txt")["text"].tolist() == rows


def test_text_of_nothing_but_spaces_has_no_rows(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeff\u00a0\n")
    with pytest.raises(UserError, match="has no rows"):
        read_table(tmp_path / "a.txt")


def test_documents_are_held_out_whole():
    rows = documents(*[f"text {i}" for i in range(40)], "twice", "twice")
    kept, held = hold_out(rows, 0.25, 100, 0)
    assert len(held) == 10
    assert sorted(kept["text_a"][:] + held["text_a"][:]) == sorted(rows["text_a"][:])
    assert "twice" not in held["text_a"][:]


def test_two_columns_of_text_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"sentence1": "a", "sentence2": "b"}\n' * 20)
    with pytest.raises(UserError, match="one column of text, not sentence1, sentence2"):
        load_data(DataSettings(task=CAUSAL_LM, validation_file=str(tmp_path / "a.jsonl")), need_train=False)
