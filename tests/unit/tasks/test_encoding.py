import datasets
import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import CanineTokenizer, PreTrainedTokenizerFast, RobertaTokenizer

from minidisc.errors import UserError
from minidisc.tasks import Cut, collator, encode, encoding, label_array

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


@pytest.mark.parametrize("pairs", [False, True])
def test_no_more_than_a_slice_of_rows_is_tokenised_at_once(monkeypatch, tokenised, pairs):
    """What a tokenizer makes of all rows of a large file would not fit into memory."""
    texts, ours = ["", "", *TEXTS, "a b", "d e f"], tokenizer()
    rows = datasets.Dataset.from_dict(
        {"text_a": texts, **({"text_b": texts[::-1]} if pairs else {}), "label": [None] * 5 + [0, 1, 2]}
    )
    together = ours(texts, *([texts[::-1]] if pairs else []), truncation=True, max_length=6)
    tokenised.clear()
    monkeypatch.setattr(encoding, "_SLICE", 3)
    cut = Cut()
    encoded = encode(rows, ours, 6, cut)
    assert tokenised == [3, 3, 2]
    assert encoded.to_dict() == {
        **together,
        "length": [len(tokens) for tokens in together["input_ids"]],
        "label": [None] * 5 + [0, 1, 2],
    }
    longer = [len(tokens) > 6 for tokens in ours(texts, *([texts[::-1]] if pairs else []))["input_ids"]]
    assert (cut.rows, cut.cut) == (8, sum(longer))
    assert {str(encoded.data.column("label").type), str(encoded.data.column("length").type)} == {"int64"}


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


@pytest.mark.parametrize(("multiple", "most", "expected"), [(1, 0, 7), (4, 100, 8), (16, 12, 12), (16, 5, 7)])
def test_padding_to_multiples(multiple, most, expected):
    ours = tokenizer()
    encoded = encode(rows_of(), ours, 7)
    batch = collator(ours, multiple, most)([encoded[row] for row in range(4)])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (4, expected)
    assert batch["attention_mask"].sum(1).tolist() == encoded["length"][:]


def test_a_tokenizer_without_a_padding_token():
    ours = tokenizer(pad=False)
    encoded = encode(rows_of(label=[0, 1, 0, 1]), ours, 128)
    with pytest.raises(UserError, match="pad_token"):
        collator(ours)([encoded[row] for row in range(4)])


# Pieces are letters: "abc" is a, ##b, ##c; "\u200d" is nothing at all.
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abc", "##a", "##b", "##c"]
SENTENCES = [["ab", "c", "abc"], ["c"], ["a", "\u200d", "bb", "a"]]
TAGS = [[1, 0, 2], [0], [2, 1, 0, 1]]


def pieces_tokenizer(side="right"):
    core = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    core.normalizer = normalizers.Replace("\u200d", "")
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", padding_side=side, model_max_length=100
    )


def words_of(**columns):
    return datasets.Dataset.from_dict({"words": SENTENCES, **columns})


def ids(text):
    return [PIECES.index(piece) for piece in text.split()]


def test_a_words_label_stands_at_its_first_piece():
    ours = pieces_tokenizer()
    encoded = encode(words_of(label=TAGS), ours, 128)
    assert encoded["input_ids"][0] == ids("[CLS] a ##b c a ##b ##c [SEP]")
    assert encoded["input_ids"][2] == ids("[CLS] a b ##b a [SEP]")
    assert encoded["first_tokens"][:] == [[1, 3, 4], [1], [1, -1, 2, 4]]
    assert encoded["label"][:] == TAGS
    assert encoded["length"][:] == [8, 3, 6]
    batch = collator(ours)([encoded[row] for row in range(3)])
    no = -100
    assert batch["labels"].tolist() == [
        [no, 1, no, 0, 2, no, no, no],
        [no, 0, no, no, no, no, no, no],
        [no, 2, 0, no, 1, no, no, no],
    ]
    assert batch["labels"].dtype == torch.int64
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_padding_on_the_left_moves_the_labels():
    ours = pieces_tokenizer("left")
    encoded = encode(words_of(label=TAGS), ours, 128)
    batch = collator(ours)([encoded[row] for row in (2, 0)])
    assert batch["input_ids"][0].tolist() == ids("[PAD] [PAD] [CLS] a b ##b a [SEP]")
    no = -100
    assert batch["labels"][0].tolist() == [no, no, no, 2, 0, no, 1, no]


@pytest.mark.parametrize(
    ("limit", "first", "labels"),
    [
        (6, [1, 3, 4], [-100, 1, -100, 0, 2, -100]),
        (5, [1, 3, -1], [-100, 1, -100, 0, -100]),
        (4, [1, -1, -1], [-100, 1, -100, -100]),
    ],
)
def test_words_that_are_cut_off_have_no_token(limit, first, labels):
    ours = pieces_tokenizer()
    encoded = encode(words_of(label=TAGS), ours, limit)
    assert encoded["first_tokens"][0] == first
    assert encoded["label"][0] == TAGS[0]
    assert collator(ours)([encoded[0]])["labels"].tolist() == [labels]


def test_words_of_slices_are_those_of_all_rows(monkeypatch):
    ours, whole, sliced = pieces_tokenizer(), Cut(), Cut()
    rows = datasets.Dataset.from_dict({"words": [[], *SENTENCES], "label": [[], None, *TAGS[1:]]})
    expected = encode(rows, ours, 5, whole)
    monkeypatch.setattr(encoding, "_SLICE", 1)
    encoded = encode(rows, ours, 5, sliced)
    assert encoded.to_dict() == expected.to_dict()
    assert encoded.features == expected.features
    assert sliced == whole
    assert (whole.cut, whole.words) == (2, 2)


def test_words_without_labels():
    ours = pieces_tokenizer()
    partly = encode(words_of(label=[TAGS[0], None, TAGS[2]]), ours, 128)
    assert partly["label"][:] == [TAGS[0], None, TAGS[2]]
    collate = collator(ours)
    assert "labels" not in collate([partly[0], partly[1]])
    assert collate([partly[0], partly[2]])["labels"].shape == (2, 8)
    assert "label" not in encode(words_of(), ours, 128).column_names


def test_label_array():
    ours = pieces_tokenizer()
    labels = label_array(encode(words_of(label=TAGS), ours, 128))
    assert labels.shape == (3,)
    assert [row.tolist() for row in labels[np.array([2, 0, 2])]] == [TAGS[2], TAGS[0], TAGS[2]]
    # Rows that are equally long are rows all the same.
    same = label_array(encode(datasets.Dataset.from_dict({"words": [["a", "b"]] * 3, "label": [[0, 1]] * 3}), ours, 9))
    assert same.shape == (3,)
    sentences = label_array(encode(rows_of(label=[0, 1, 2, 1]), tokenizer(), 128))
    assert sentences.tolist() == [0, 1, 2, 1]


def test_a_tokenizer_that_knows_no_words(monkeypatch):
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        encode(words_of(), pieces_tokenizer(), 128)


def byte_level():
    """A RoBERTa tokenizer with two words, which it knows only with the space before them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("\u0120", "a"), ("b", "c"), ("\u0120", "bc")]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet, *("".join(pair) for pair in merges)]
    return RobertaTokenizer(vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=merges)


@pytest.mark.parametrize("kind", ["roberta", "generic"])
def test_a_byte_level_tokenizer_sees_the_space_before_a_word(tmp_path, kind):
    from transformers import RobertaConfig, RobertaForTokenClassification

    from minidisc.teachers import load_model

    given = byte_level()
    if kind == "generic":
        core = given.backend_tokenizer
        core.decoder = decoders.ByteLevel()
        given = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>")
    given.save_pretrained(tmp_path / "teacher")
    config = RobertaConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    RobertaForTokenClassification(config).save_pretrained(tmp_path / "teacher")

    rows = datasets.Dataset.from_dict({"words": [["bc", "a", "bc"]]})
    loaded = load_model(str(tmp_path / "teacher"))
    encoded = encode(rows, loaded.tokenizer, 128)
    pieces = loaded.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert pieces == ["<s>", "\u0120bc", "\u0120a", "\u0120bc", "</s>"]
    assert encoded["first_tokens"][0] == [1, 2, 3]
    # As a pipeline will see the text, and so that the student's tokenizer does it too.
    assert loaded.tokenizer("bc a bc")["input_ids"] == encoded["input_ids"][0]
    loaded.model.save_pretrained(tmp_path / "student")
    loaded.tokenizer.save_pretrained(tmp_path / "student")
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert again("bc a bc")["input_ids"] == encoded["input_ids"][0]


def test_words_are_encoded_as_a_text_of_them_where_the_tokenizer_splits_before_it_maps_bytes():
    """As the tokenizers of Qwen and Llama 3 do."""
    core = byte_level().backend_tokenizer
    split = pre_tokenizers.Split(Regex(r"\s?\p{L}+|\s+"), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer, core.post_processor = pre_tokenizers.Sequence([split, bytes_]), processors.ByteLevel()
    ours = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>")
    encoded = encode(datasets.Dataset.from_dict({"words": [["bc", "a", "bc"], ["a"], []]}), ours, 128)
    assert encoded["input_ids"][:] == ours(["bc a bc", "a", ""])["input_ids"]
    assert ours.convert_ids_to_tokens(encoded["input_ids"][0]) == ["bc", "\u0120a", "\u0120bc"]
    assert encoded["first_tokens"][:] == [[0, 1, 2], [0], []]


def splits_off_numbers(kind):
    """A tokenizer for which a digit is a token of its own, and so is the space before one."""
    if kind == "byte-level":
        core = byte_level().backend_tokenizer
        split = pre_tokenizers.Split(Regex(r"\s?\p{L}+|\p{N}|\s+"), behavior="isolated")
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.pre_tokenizer, core.post_processor = pre_tokenizers.Sequence([split, bytes_]), processors.ByteLevel()
        core.decoder = decoders.ByteLevel()
    else:
        pieces = ["<pad>", "\u2581", *"abc91", "\u2581a"]
        merges = [("\u2581", "a")]
        core = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
        core.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        core.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>")


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_a_words_label_stands_behind_a_space_that_is_a_token_of_its_own(kind):
    ours = splits_off_numbers(kind)
    encoded = encode(datasets.Dataset.from_dict({"words": [["a", "91", "a", " ", "19"], ["91"]]}), ours, 128)
    for row, first in zip(encoded, [["a", "9", "a", "_", "1"], ["9"]], strict=True):
        pieces = ours.convert_ids_to_tokens(row["input_ids"])
        pieces = [piece.replace("\u2581", "_").replace("\u0120", "_") for piece in pieces]
        assert [pieces[token].lstrip("_") or "_" for token in row["first_tokens"]] == first
        assert all(pieces[token - 1] == "_" for token in row["first_tokens"][1:] if pieces[token] in "91")


@pytest.mark.parametrize("kind", ["one text", "pairs", "words", "words, cut on the left", "a tokenizer of Python"])
def test_what_is_cut_off_is_counted(kind):
    ours, limit, columns = tokenizer(), 5, {"text_a": [*TEXTS, "e f g"]}
    if kind == "pairs":
        columns, limit = {"text_a": [*TEXTS, "e"], "text_b": [*PAIRS, "f g h a"]}, 8
    elif kind == "a tokenizer of Python":
        ours = CanineTokenizer()
        columns["text_a"] = ["abc", "abcd", "", "ab"]
    elif kind.startswith("words"):
        ours = pieces_tokenizer()
        ours.truncation_side = "left" if "left" in kind else "right"
        # A word of several pieces may lose one; of one the tokenizer makes nothing anyway.
        columns = {"words": [["a"] * 3, ["a"] * 4, ["a"] * 5, ["ab", "ab"], ["a", "\u200d", "a", "a", "a"]]}
    given = datasets.Dataset.from_dict(columns)
    whole, cut = encode(given, ours, 128), Cut()
    encode(given, ours, limit, cut)
    assert (cut.rows, cut.cut) == (len(given), sum(length > limit for length in whole["length"]))
    assert (cut.cut, cut.words) == {"o": (1, 0), "p": (2, 0), "w": (4, 4), "a": (1, 0)}[kind[0]]


def test_what_is_said_of_rows_that_are_cut():
    assert Cut(128, True, 60).told("dev.csv") is Cut(128, True, 200, 2).told("dev.csv") is None
    assert "2 of 199 rows" in Cut(128, True, 199, 2).told("dev.csv")
    line = "2 of 60 rows of dev.csv are longer than --max-length 128 tokens and were cut"
    assert Cut(128, True, 60, 2).told("dev.csv") == f"{line}."
    assert Cut(128, True, 60, 2, 7).told("dev.csv") == (
        f"{line}; 7 of their words were cut off, and count as predicted O."
    )
    cut = Cut()
    encode(rows_of(), tokenizer(model_max_length=6), 128, cut)
    assert "the tokenizer's model_max_length of 6 tokens" in cut.told("dev.csv")
