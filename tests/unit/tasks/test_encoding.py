import datasets
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from minidisc.errors import UserError
from minidisc.tasks import collator, encode

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
TEXTS = ["a b c", "d", "e f g h a b", "c c"]
PAIRS = ["h", "a b c d e", "f", "g g"]


def tokenizer(model_max_length=None, types=True, pad=True, side="right"):
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    limit = {"model_max_length": model_max_length} if model_max_length else {}
    padding = {"pad_token": "[PAD]"} if pad else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", model_input_names=names, padding_side=side, **padding, **limit
    )


def rows_of(pairs=False, **columns):
    return datasets.Dataset.from_dict({"text_a": TEXTS, **({"text_b": PAIRS} if pairs else {}), **columns})


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("types", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_what_the_tokenizer_pads_itself(pairs, types, side):
    ours = tokenizer(types=types, side=side)
    encoded = encode(rows_of(pairs, label=[0, 1, 2, 1]), ours, 128)
    batch = next(iter(DataLoader(encoded, batch_size=4, collate_fn=collator(ours))))
    expected = ours(TEXTS, PAIRS if pairs else None, padding="longest", return_tensors="pt")
    assert set(batch) == {*expected, "labels"}
    assert ("token_type_ids" in batch) is types
    for name, tensor in expected.items():
        assert torch.equal(batch[name], tensor), name
    assert torch.equal(batch["labels"], torch.tensor([0, 1, 2, 1]))
    assert encoded["length"][:] == batch["attention_mask"].sum(1).tolist()


def test_a_batch_is_only_as_long_as_its_longest_row():
    ours = tokenizer()
    encoded = encode(rows_of(), ours, 128)
    collate = collator(ours)
    assert collate([encoded[1], encoded[3]])["input_ids"].shape == (2, 4)
    assert "labels" not in collate([encoded[1]])


@pytest.mark.parametrize(
    ("limit", "of_tokenizer", "expected"), [(5, None, 5), (128, 6, 6), (6, 100, 6), (128, None, 8)]
)
def test_truncation(limit, of_tokenizer, expected):
    encoded = encode(rows_of(), tokenizer(model_max_length=of_tokenizer), limit)
    assert max(encoded["length"]) == expected
    assert encoded["input_ids"][2][-1] == 3


def test_pairs_lose_tokens_of_the_longer_text():
    encoded = encode(rows_of(pairs=True), tokenizer(), 8)
    # "e f g h a b" + "f": 3 special tokens leave room for 5.
    assert encoded["input_ids"][2] == [2, *(WORDS.index(word) for word in "efgh"), 3, WORDS.index("f"), 3]


def test_labels():
    ours = tokenizer()
    collate = collator(ours)
    floats = encode(rows_of(label=[0.5, 1.0, 2.0, 3.0]), ours, 128)
    batch = collate([floats[row] for row in range(4)])
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [0.5, 1.0, 2.0, 3.0]
    partly = encode(rows_of(label=[0, None, 1, 1]), ours, 128)
    assert partly["label"][:] == [0, None, 1, 1]
    assert "labels" not in collate([partly[0], partly[1]])
    assert collate([partly[0], partly[2]])["labels"].dtype == torch.int64


def test_row_numbers_are_kept_and_lengths_are_not():
    ours = tokenizer()
    encoded = encode(rows_of(label=[0, 1, 0, 1]), ours, 128).add_column("row", [10, 11, 12, 13])
    batch = collator(ours)([encoded[2], encoded[0]])
    assert torch.equal(batch["row"], torch.tensor([12, 10]))
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels", "row"}


def test_a_tokenizer_without_a_padding_token():
    with pytest.raises(UserError, match="pad_token"):
        collator(tokenizer(pad=False))
