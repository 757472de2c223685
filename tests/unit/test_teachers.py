import copy
import json
import re
from contextlib import nullcontext

import pytest
import torch
from huggingface_hub import constants
from tokenizers import normalizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from minidisc.errors import UserError
from minidisc.extraction import extract, save_model, save_small
from minidisc.subnetworks import SubnetworkSpec
from minidisc.teachers import (
    check_length,
    fingerprint_of,
    from_pretrained,
    load_config,
    load_model,
)
from minidisc.tokenization import tokenizer_fingerprint
from tests.integration.fresh import run
from tests.unit.families import (
    BERT,
    GPT2,
    LLAMA,
    MATRIX,
    MPNET,
    OPT,
    PAD,
    QWEN2,
    ROBERTA,
    T5,
    XLM_ROBERTA,
    t5_tokenizer,
    tiny_tokenizer,
)


def saved(model, folder):
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("row", [LLAMA, QWEN2, GPT2, OPT], ids=lambda row: row.name)
@pytest.mark.parametrize("pad", [None, PAD + 7])
def test_a_decoder_that_takes_padding_for_the_last_token_is_refused(tmp_path, row, pad):
    teacher = row.model()
    teacher.config.pad_token_id = pad
    with pytest.raises(UserError, match=re.escape(f"pad_token_id is {pad}, but its tokenizer's is {PAD};")):
        load_model(saved(teacher, tmp_path / "teacher"))
    student = extract(teacher, SubnetworkSpec(0.5, (2, 2, 2), (9, 9, 9)))
    save_small(student, tiny_tokenizer(), tmp_path / "student")
    with pytest.raises(UserError, match="pad_token_id"):
        load_model(str(tmp_path / "student"))


@pytest.mark.parametrize("row", [LLAMA, GPT2], ids=lambda row: row.name)
def test_a_decoder_for_whole_rows_needs_a_padding_token(tmp_path, row):
    teacher = row.model()
    teacher.config.pad_token_id = None
    folder = saved(teacher, tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="has no padding token; set pad_token in"):
        load_model(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "version https://git-lfs.github.com/spec/v1\n", '{"model": {"type": "New"}}']
)
def test_a_tokenizer_that_cannot_be_read(tmp_path, content):
    folder = saved(BERT.model(), tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="has no usable tokenizer: ") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [BERT, LLAMA, T5], ids=lambda row: row.name)
def test_a_model_is_loaded_without_a_tokenizer_but_not_used_for_text(tmp_path, row):
    teacher = row.model()
    teacher.save_pretrained(tmp_path / "teacher")
    student = extract(teacher, row.fit(SubnetworkSpec(0.5, (2, 2, 2), (9, 9, 9))))
    save_small(student, tiny_tokenizer(), tmp_path / "run")
    from_pretrained(tmp_path / "run").save_pretrained(tmp_path / "student")
    inputs = row.inputs()
    for name, model in (("teacher", teacher), ("student", student)):
        again = from_pretrained(tmp_path / name)
        assert torch.equal(again(**inputs).logits, model.eval()(**inputs).logits)
        with pytest.raises(UserError, match=f"/{name}' holds no tokenizer; save it there"):
            load_model(str(tmp_path / name))


def test_a_tokenizer_that_is_there_is_checked_for_the_model_alone_too(tmp_path):
    teacher = LLAMA.model()
    teacher.config.pad_token_id = PAD + 7
    with pytest.raises(UserError, match="pad_token_id"):
        from_pretrained(saved(teacher, tmp_path))


@pytest.mark.parametrize("row", [row for row in MATRIX if row.token_class is None], ids=lambda row: row.name)
def test_a_family_without_token_classifiers_is_refused_for_them(tmp_path, row):
    teacher = row.model()
    student = extract(teacher, row.fit(SubnetworkSpec(0.5, (2, 2, 2), (9, 9, 9))))
    for name, model in {"teacher": teacher, "student": student}.items():
        folder = saved(model, tmp_path / name)
        assert load_model(folder).model.config.model_type == model.config.model_type
        with pytest.raises(UserError, match=f"family '{row.family}' has no ForTokenClassification class"):
            load_model(folder, kind="token-classification", new_head=True)


def test_a_t5_whose_tokenizer_gives_no_end_is_refused(tmp_path):
    teacher = T5.model()
    teacher.config.eos_token_id = 1
    with pytest.raises(
        UserError, match=r"end token \(eos_token_id 1\), which its tokenizer does not put behind a text"
    ):
        load_model(saved(teacher, tmp_path / "teacher"))
    words = T5.token_model()
    words.config.eos_token_id = 1
    load_model(saved(words, tmp_path / "words"))


def test_an_end_token_in_a_text_is_text(tmp_path):
    """T5ForSequenceClassification fails on a batch in which rows hold more ends than others."""
    loaded = load_model(saved(T5.model(), tmp_path / "teacher"))
    inputs = loaded.tokenizer(["w10 [SEP] w11", "w10"], padding=True, return_tensors="pt")
    assert (inputs["input_ids"] == loaded.model.config.eos_token_id).sum(1).tolist() == [1, 1]
    assert loaded.model(inputs["input_ids"], inputs["attention_mask"]).logits.shape == (2, 2)
    # In what is handed over too.
    save_small(
        extract(loaded.model, T5.fit(SubnetworkSpec(0.5, (2,) * 3, (9,) * 3))), loaded.tokenizer, tmp_path / "x"
    )
    again = AutoTokenizer.from_pretrained(tmp_path / "x")
    assert again("w10 [SEP] w11")["input_ids"] == inputs["input_ids"][0].tolist()


@pytest.mark.parametrize("normalizer", [None, normalizers.NFKC()], ids=["T5's class", "with a normalizer"])
def test_an_end_token_that_is_a_piece_of_words_is_text_too(tmp_path, normalizer):
    before = t5_tokenizer()
    if normalizer:
        before.backend_tokenizer.normalizer = normalizer
        before = PreTrainedTokenizerFast(
            tokenizer_object=before.backend_tokenizer, **before.init_kwargs, model_input_names=before.model_input_names
        )
    T5.model(eos_token_id=1).save_pretrained(tmp_path)
    before.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    texts = ["fine </s> warm", "fine</s>warm", "</s</s>></s>", "fine \uff1c/s> warm", "</s>"]
    others = ["fine plot", "", " warm,  <fine> s> <pad> <extra_id_0> plot <unk>", "naïve \uff46ine"]
    assert before(texts[0])["input_ids"].count(1) == 2
    student = extract(loaded.model, T5.fit(SubnetworkSpec(0.5, (2,) * 3, (9,) * 3)))
    save_small(student, loaded.tokenizer, tmp_path / "x")
    again = load_model(str(tmp_path / "x"))
    assert tokenizer_fingerprint(again.tokenizer) == tokenizer_fingerprint(loaded.tokenizer)
    for tokenizer in (loaded.tokenizer, AutoTokenizer.from_pretrained(tmp_path / "x"), again.tokenizer):
        assert [ids.count(1) for ids in tokenizer(texts)["input_ids"]] == [1] * len(texts)
        assert [ids.count(1) for ids in tokenizer(texts, texts)["input_ids"]] == [2] * len(texts)
        assert dict(tokenizer(others)) == dict(before(others, split_special_tokens=True))
    script = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
print(json.dumps(tokenizer(json.loads(sys.argv[2]))["input_ids"]))
"""
    fresh = run(script, tmp_path, tmp_path / "x", json.dumps([*texts, *others]))
    assert fresh == loaded.tokenizer([*texts, *others])["input_ids"]


def test_others_may_call_their_padding_anything(tmp_path):
    for number, model in enumerate((BERT.model(), LLAMA.token_model())):
        model.config.pad_token_id = None
        loaded = load_model(saved(model, tmp_path / str(number)))
        assert loaded.model.config.pad_token_id is None
    assert load_model(saved(LLAMA.model(), tmp_path / "known")).model.config.pad_token_id == PAD


@pytest.mark.parametrize("row", [LLAMA, GPT2], ids=lambda row: row.name)
def test_passes_keep_no_keys_and_values_but_generation_does(tmp_path, row):
    folder = saved(row.causal_model(), tmp_path / "teacher")
    inputs = row.inputs(rows=1, padding=False)
    assert from_pretrained(folder)(**inputs).past_key_values is not None
    model = load_model(folder, kind="causal-lm").model
    assert model(**inputs).past_key_values is None
    lengths = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    model.generate(inputs["input_ids"], max_new_tokens=3, min_new_tokens=3)
    assert lengths == [inputs["input_ids"].shape[1], 1, 1]


@pytest.mark.parametrize("row", [LLAMA, GPT2, T5], ids=lambda row: row.name)
@pytest.mark.parametrize("caches", [True, False])
def test_what_is_saved_says_of_the_cache_what_the_teacher_said(tmp_path, row, caches):
    model = load_model(saved(row.model(use_cache=caches), tmp_path / "teacher")).model
    save_model(model, tmp_path / "finetuned")
    for name, heads in (("uniform", (2, 2, 2)), ("own", (2, 1, 2))):
        student = extract(copy.deepcopy(model), row.fit(SubnetworkSpec(0.5, heads, (9, 9, 9))))
        save_small(student, tiny_tokenizer(), tmp_path / name)
        assert not student.config.use_cache
    for name in ("finetuned", "uniform", "own"):
        assert AutoConfig.from_pretrained(tmp_path / name).use_cache == caches
    assert not model.config.use_cache


def test_a_length_that_is_text(tmp_path):
    folder = saved(BERT.model(), tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": "512"}))
    with pytest.raises(UserError, match=r"model_max_length in .* is '512'; write a number"):
        load_model(folder)


@pytest.mark.parametrize("row", [ROBERTA, XLM_ROBERTA, MPNET], ids=lambda row: row.name)
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_the_longest_row_is_the_one_that_the_model_has_positions_for(row, pad):
    model = row.model(pad_token_id=pad, max_position_embeddings=14)

    def runs(length):
        try:
            model(torch.full((1, length), 9))
        except (IndexError, RuntimeError):
            return False
        return True

    longest = next(length for length in range(14, 0, -1) if runs(length))
    check_length(model.config, longest)
    with pytest.raises(UserError, match=f"positions for {longest} tokens only"):
        check_length(model.config, longest + 1)


def with_config(folder, **changes):
    """A saved BERT whose config.json was changed by hand."""
    saved(BERT.model(), folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return str(folder)


@pytest.mark.parametrize(
    ("names", "texts"),
    [([0, 1], ("0", "1")), ([True, False], ("True", "False")), ([0.5, "x"], ("0.5", "x"))],
)
def test_names_of_outputs_are_text(tmp_path, names, texts):
    folder = with_config(tmp_path, id2label={str(i): names[i] for i in (1, 0)})
    for config in (load_config(folder), load_model(folder).model.config):
        assert [*config.id2label.items()] == [*enumerate(texts)]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"1": "contra", "2": "pro"}, "names the outputs 1, 2, but they count from 0 to 1; correct"),
        ({"0": "contra", "1": None}, "has null for output 1"),
        (["contra", "pro"], "cannot load a model from"),
    ],
)
def test_names_of_outputs_that_cannot_be_used(tmp_path, names, words):
    with pytest.raises(UserError, match=words) as caught:
        load_config(with_config(tmp_path, id2label=names))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "classifier.bias is 2, where config.json says 3 (1 more"),
        ({"vocab_size": 99}, "bert.embeddings.word_embeddings.weight is 60 × 32, where config.json says 99 × 32;"),
    ],
    ids=["classifier", "embeddings"],
)
def test_weights_that_do_not_fit_the_configuration(tmp_path, changes, words):
    folder = with_config(tmp_path, **changes)
    with pytest.raises(UserError, match=re.escape(words)):
        load_model(folder)
    # A classifier may be a new one, embeddings drawn by chance may not.
    with pytest.raises(UserError, match=re.escape(words)) if "vocab_size" in changes else nullcontext():
        load_model(folder, new_head=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "are quantised (gptq); give the model",
        ),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine"}},
            "comes with code of its own, which is not run; add --trust-remote-code if you trust",
        ),
    ],
    ids=["quantised", "code"],
)
def test_models_that_are_not_loaded(tmp_path, changes, words):
    folder = with_config(tmp_path, **changes)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_another_commit_on_the_hub_is_another_teacher(tmp_path, monkeypatch):
    """The Hub's cache, as a download leaves it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert fingerprint_of("me/model") == "me/model"
    for commit in ("a" * 40, "b" * 40):
        for part in ("refs", f"snapshots/{commit}"):
            (tmp_path / "models--me--model" / part).mkdir(parents=True, exist_ok=True)
        (tmp_path / "models--me--model" / "refs" / "main").write_text(commit)
        BERT.config().save_pretrained(tmp_path / "models--me--model" / "snapshots" / commit)
        assert load_config("me/model").model_type == "bert"
        assert fingerprint_of("me/model") == f"me/model@{commit}"
    (tmp_path / "me" / "model").mkdir(parents=True)
    assert fingerprint_of("me/model") == "me/model"


def test_a_tokenizers_fingerprint_is_the_same_in_another_process_and_another_for_other_tokens(tmp_path):
    script = """
import json, sys
from transformers import AutoTokenizer
from minidisc.tokenization import tokenizer_fingerprint
print(json.dumps(tokenizer_fingerprint(AutoTokenizer.from_pretrained(sys.argv[1]))))
"""
    tiny_tokenizer().save_pretrained(tmp_path / "one")
    first = tokenizer_fingerprint(AutoTokenizer.from_pretrained(tmp_path / "one"))
    assert run(script, tmp_path, tmp_path / "one") == first
    changed = [AutoTokenizer.from_pretrained(tmp_path / "one") for _ in range(3)]
    changed[0].backend_tokenizer.normalizer = normalizers.Lowercase()
    changed[1].truncation_side = "left"
    changed[2].model_max_length = 7
    assert len({first, *map(tokenizer_fingerprint, changed)}) == 4
