"""A trimmed vocabulary: the same pieces and logits wherever no dropped piece occurs."""

import json
import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from minidisc.errors import UserError
from minidisc.vocabulary import dropped, named_pieces, needed_pieces, trim_model, trim_tokenizer
from tests.unit.families import GEMMA3, LLAMA, MATRIX, PAD, VOCABULARY, tiny_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SYLLABLES = ["ba", "ne", "lo", "tir", "mus", "kan", "dor", "vi"]


def words(seed, count):
    choice = random.Random(seed)
    return ["".join(choice.choices(SYLLABLES, k=choice.randint(1, 4))) for _ in range(count)]


def texts(seed, count, vocabulary):
    choice = random.Random(seed)
    return [" ".join(choice.choices(vocabulary, k=choice.randint(2, 9))) for _ in range(count)]


def wrapped(backend):
    """The tokenizer as transformers has it, with [CLS] and [SEP] around a text, by numbers that are not the first."""
    numbers = {name: backend.token_to_id(name) for name in SPECIAL}
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, numbers[name]) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def word_piece(corpus):
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL))
    return wrapped(backend)


def byte_level(corpus):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # Added behind the pieces, as Qwen's.
    backend.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet))
    backend.add_special_tokens(SPECIAL)
    return wrapped(backend)


def byte_fallback(corpus):
    """BPE with bytes for what it does not know, as Llama's."""
    backend = Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=500, special_tokens=special))
    return wrapped(backend)


def unigram(corpus):
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=SPECIAL, unk_token="[UNK]")
    backend.train_from_iterator(corpus, trainer)
    return wrapped(backend)


@pytest.fixture(scope="module")
def corpus():
    return texts(0, 400, words(0, 150))


@pytest.mark.parametrize("build", [word_piece, byte_level, byte_fallback, unigram], ids=lambda build: build.__name__)
def test_text_of_kept_pieces_has_the_same_pieces(build, corpus, tmp_path):
    tokenizer = build(corpus)
    seen = texts(1, 30, words(0, 150)[:12])
    kept = needed_pieces(tokenizer, {number for row in tokenizer([*seen, "lo ba"])["input_ids"] for number in row})
    assert len(kept) < len(tokenizer)
    trimmed = trim_tokenizer(tokenizer, kept)
    trimmed.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    same = 0
    for text in [*seen, *texts(2, 300, words(0, 150)), *texts(3, 300, words(4, 150)), "ba ζ ne", "ba ne [SEP] lo"]:
        before = tokenizer(text, "lo ba", padding="max_length", max_length=100)["input_ids"]
        for now in (trimmed, loaded):
            after = now(text, "lo ba", padding="max_length", max_length=100)["input_ids"]
            if set(before) <= set(kept):
                assert [kept[number] for number in after] == before
                assert now.convert_ids_to_tokens(after) == tokenizer.convert_ids_to_tokens(before)
                same += 1
            elif tokenizer.unk_token_id not in before:
                # Another spelling of the same text.
                spelt = [x.decode(ids, skip_special_tokens=True) for x, ids in ((now, after), (tokenizer, before))]
                assert spelt[0].replace(" ", "") == spelt[1].replace(" ", "")
                assert now.unk_token_id not in after
    assert 2 * len(seen) < same < 2 * 600
    assert len(loaded) == len(kept)


def test_logits_are_those_of_the_whole_model(family):
    kept = sorted({*range(PAD + 5), *range(7, VOCABULARY, 3)})
    model = family.model()
    inputs = family.inputs()
    rows = torch.tensor(kept)
    whole = torch.randint(5, len(kept), inputs["input_ids"].shape, generator=torch.Generator().manual_seed(0))
    old = torch.where(inputs["attention_mask"].bool(), rows[whole], inputs["input_ids"])
    if family.end_token is not None:
        old = torch.where(inputs["input_ids"] == family.end_token, family.end_token, old)
    new = torch.tensor([[kept.index(number) for number in row] for row in old.tolist()])
    expected = model(**{**inputs, "input_ids": old}).logits
    trim_model(model, kept)
    torch.testing.assert_close(model(**{**inputs, "input_ids": new}).logits, expected, rtol=0, atol=0)
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == len(kept)
    tables = {name: value for name, value in model.state_dict().items() if len(value) == VOCABULARY}
    assert not tables


@pytest.mark.parametrize("decoder", [row for row in MATRIX if row.causal_class], ids=lambda row: row.name)
def test_a_language_models_outputs_are_trimmed_too(decoder):
    kept = sorted({*range(PAD + 5), *range(7, VOCABULARY, 3)})
    model = decoder.causal_model()
    number = torch.randint(5, len(kept), (2, 9), generator=torch.Generator().manual_seed(0))
    expected = model(torch.tensor(kept)[number]).logits[..., kept]
    trim_model(model, kept)
    torch.testing.assert_close(model(number).logits, expected, rtol=0, atol=1e-6)


def test_a_tokenizer_may_have_more_pieces_than_the_model():
    tokenizer, model = tiny_tokenizer(), GEMMA3.causal_model()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    texts = ["w10 w12", "w12 w12 w10"]
    kept = needed_pieces(tokenizer, {number for row in tokenizer(texts)["input_ids"] for number in row})
    expected = model(**tokenizer(texts[:1], return_tensors="pt")).logits[..., kept[:-1]]
    trim_model(model, kept)
    trimmed = trim_tokenizer(tokenizer, kept)
    found = model(**trimmed(texts[:1], return_tensors="pt")).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert trimmed.convert_tokens_to_ids("<image>") == model.config.vocab_size == len(kept) - 1


def test_special_tokens_of_the_configuration_are_renumbered():
    model = MATRIX[0].model()
    model.config.pad_token_id, model.config.eos_token_id = 4, [4, 9]
    trim_model(model, [0, 4, 9])
    assert (model.config.pad_token_id, model.config.eos_token_id) == (1, [1, 2])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("suppress_tokens", lambda first, second: [5, first]),
        ("begin_suppress_tokens", lambda first, second: [first, 5]),
        ("bad_words_ids", lambda first, second: [[5], [first, second], [first, 5]]),
        ("sequence_bias", lambda first, second: [[[5], 99.0], [[first], -99.0]]),
        ("sequence_bias", lambda first, second: {(5,): 99.0, (first, second): -99.0}),
    ],
)
def test_generation_forbids_the_same_pieces(name, value):
    kept = sorted({*range(PAD + 5), *range(7, VOCABULARY, 3)})
    model = LLAMA.causal_model()

    def written(pieces, allowed):
        ids = torch.tensor([pieces])
        new = model.generate(ids, do_sample=False, max_new_tokens=5, prefix_allowed_tokens_fn=lambda *_: allowed)
        return new[0, len(pieces) :].tolist()

    free = written([7, 10, 16], kept[5:])
    setattr(model.generation_config, name, value(*free[:2]))
    expected = written([7, 10, 16], kept[5:])
    assert expected != free
    trim_model(model, kept)
    found = written([kept.index(number) for number in (7, 10, 16)], [*range(5, len(kept))])
    assert [kept[number] for number in found] == expected


@pytest.mark.parametrize(("name", "value"), [("bad_words_ids", [[5]]), ("sequence_bias", [[[5], 1.0]])])
def test_generation_of_a_model_that_forbade_dropped_pieces_alone(name, value):
    model = LLAMA.causal_model()
    setattr(model.generation_config, name, value)
    trim_model(model, [0, 1, 2, 7, 9])
    assert model.generate(torch.tensor([[3, 4]]), do_sample=False, max_new_tokens=2).max() < 5


def test_a_generation_configuration_that_is_saved_only_as_it_was_read(tmp_path):
    odd = {"temperature": 0.6, "eos_token_id": 9}  # without do_sample
    (tmp_path / "generation_config.json").write_text(json.dumps(odd))
    model = LLAMA.causal_model()
    model.generation_config = GenerationConfig.from_pretrained(tmp_path)
    trim_model(model, [0, 4, 9])
    model.save_pretrained(tmp_path / "trimmed")
    saved = json.loads((tmp_path / "trimmed" / "generation_config.json").read_text())
    assert (saved["temperature"], saved["eos_token_id"]) == (0.6, 2)


@pytest.mark.parametrize("pad", [-1, 50, PAD])
def test_pieces_that_a_model_names_are_kept(pad):
    tokenizer, model = tiny_tokenizer(), LLAMA.causal_model(pad_token_id=pad)
    model.generation_config.eos_token_id = [3, 51]
    row = model.get_input_embeddings().weight[pad].clone()
    kept = needed_pieces(tokenizer, {10, 12} | named_pieces(model))
    assert {*kept} == {*range(5), 10, 12, 51, pad % VOCABULARY}
    trim_model(model, kept)
    assert model.generation_config.eos_token_id == [3, kept.index(51)]
    assert model.config.pad_token_id == (pad if pad < 0 else kept.index(pad))
    padding = model.get_input_embeddings().padding_idx
    assert padding == model.config.pad_token_id % len(kept)
    assert torch.equal(model.get_input_embeddings().weight[padding], row)


def test_a_piece_that_a_model_names_may_be_none_of_the_tokenizers(corpus):
    tokenizer = byte_level(corpus)
    kept = needed_pieces(tokenizer, {*tokenizer("ba ne")["input_ids"], len(tokenizer) + 7})
    assert kept[-1] == len(tokenizer) + 7
    assert trim_tokenizer(tokenizer, kept).tokenize("ba ne") == tokenizer.tokenize("ba ne")


def test_how_often_dropped_pieces_occur():
    assert dropped([[1, 2, 3], [1, 7], [8, 7, 1]], [1, 2, 3]) == {"rows": 2, "pieces": 3 / 8}
    assert dropped([], [1]) == {"rows": 0, "pieces": 0}


def test_a_tokenizer_of_another_kind_is_refused():
    backend = Tokenizer(models.BPE({"a": 0, "b</w>": 1, "ab</w>": 2}, [("a", "b</w>")], end_of_word_suffix="</w>"))
    with pytest.raises(UserError, match="BPE with prefixes or suffixes"):
        needed_pieces(PreTrainedTokenizerFast(tokenizer_object=backend), [0])


def test_words_of_the_tiny_tokenizer():
    tokenizer = tiny_tokenizer()
    kept = needed_pieces(tokenizer, tokenizer("w10 w12")["input_ids"])
    trimmed = trim_tokenizer(tokenizer, kept)
    assert trimmed.convert_ids_to_tokens(trimmed("w10 w11 w12")["input_ids"])[1:4] == ["w10", "[UNK]", "w12"]
