"""A plain T5 becomes a teacher of each form, and each goes through the whole pipeline."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import minidisc
from minidisc.cli.main import main
from minidisc.errors import UserError
from minidisc.finetuning import FinetuneSettings, finetune
from tests.integration import tiny

CLASSES = {
    "encoder": "T5EncoderForSequenceClassification",
    "enct5": "EncT5ForSequenceClassification",
    "encoder-decoder": "T5ForSequenceClassification",
}
PARTS = {"encoder": (3, 3), "enct5": (3 + 2, 3 + 1), "encoder-decoder": (3 + 2 * 2, 3 + 2)}


def tokenizer():
    """Whole words with an end token behind a text, and nothing before it, as T5's."""
    made = tiny.tokenizer()
    core = made.backend_tokenizer
    words = core.get_vocab()
    from tokenizers.processors import TemplateProcessing

    core.post_processor = TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", words["[SEP]"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder with a T5 that has not been fine-tuned."""
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    words = tokenizer()
    special = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id}
    config = T5Config(
        **special,
        vocab_size=len(words),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=words.pad_token_id,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def tuned(workplace, plain, folder, **changes):
    values = {
        "model": str(plain),
        "output_dir": str(folder),
        "train_file": str(workplace / "train.csv"),
        "validation_file": str(workplace / "validation.csv"),
        "max_steps": 2,
        "batch_size": 16,
        "device": "cpu",
    }
    finetune(FinetuneSettings(**{**values, **changes}))
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("form", CLASSES)
def test_from_a_plain_t5_to_a_student(workplace, plain, tmp_path, form, capsys):
    # Steps so small that they leave the weights where they were.
    config = tuned(workplace, plain, tmp_path / "teacher", t5_form=form, learning_rate=1e-12)
    assert config["architectures"] == [CLASSES[form]]
    before, after = load_file(plain / "model.safetensors"), load_file(tmp_path / "teacher" / "model.safetensors")
    taken = {name: value for name, value in after.items() if name.startswith("transformer.")}
    assert taken
    for name, value in taken.items():
        torch.testing.assert_close(value, before[name.removeprefix("transformer.")], atol=1e-6, rtol=0)

    flags = {**tiny.settings(workplace, tmp_path / "run"), "teacher": tmp_path / "teacher", "max_steps": 3}
    parts = [part for name, value in flags.items() if name != "grid" for part in (f"--{name}", str(value))]
    main(["compress", *(part.replace("_", "-") if part[:2] == "--" else part for part in parts), "--grid", "0.25,0.5"])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    attentions, ffns = PARTS[form]
    assert results["teacher"]["heads"] == [4] * attentions
    assert results["teacher"]["neurons"] == [64] * ffns
    student = results["student"]
    assert (len(student["heads"]), len(student["neurons"])) == (attentions, ffns)
    assert sum(student["heads"]) == attentions
    assert sum(student["neurons"]) == 16 * ffns
    assert form != "enct5" or student["heads"][-1] > 0
    model = minidisc.from_pretrained(tmp_path / "run" / "student")
    assert sum(p.numel() for p in model.parameters()) == student["sizes"]["all"]
    capsys.readouterr()
    flags = ("--model", str(tmp_path / "run" / "student"), "--validation-file", str(workplace / "validation.csv"))
    main(["evaluate", *flags, "--json"])
    assert json.loads(capsys.readouterr().out)["metrics"] == student["metrics"]


def test_the_form_when_nothing_is_said(workplace, plain, tmp_path):
    assert tuned(workplace, plain, tmp_path / "one")["model_type"] == "t5-encoder"
    tuned(workplace, plain, tmp_path / "whole", t5_form="encoder-decoder")
    again = tuned(workplace, tmp_path / "whole", tmp_path / "again")
    assert again["architectures"] == ["T5ForSequenceClassification"]
    assert tuned(workplace, tmp_path / "one", tmp_path / "two")["model_type"] == "t5-encoder"


@pytest.mark.parametrize("model", ["backbone", "t5-encoder"])
def test_a_form_for_what_is_no_plain_t5(workplace, plain, tmp_path, model):
    source = workplace / "backbone"
    if model != "backbone":
        tuned(workplace, plain, source := tmp_path / "encoder")
    with pytest.raises(UserError, match=r"--t5-form says what a plain T5 becomes .* leave it out\."):
        tuned(workplace, source, tmp_path / "other", t5_form="enct5")
    assert not (tmp_path / "other").exists()


def test_a_family_that_is_not_known_leaves_nothing(workplace, plain, tmp_path):
    shutil.copytree(plain, source := tmp_path / "mt5")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": "mt5"}))
    for form in (None, "encoder"):
        with pytest.raises(UserError, match="model family 'mt5' is not known"):
            tuned(workplace, source, tmp_path / "teacher", t5_form=form)
    assert [path.name for path in tmp_path.iterdir()] == ["mt5"]


def test_layers_of_an_encoder_and_a_decoder_are_not_dropped(workplace, plain, tmp_path, capsys):
    tuned(workplace, plain, tmp_path / "teacher", t5_form="enct5")
    flags = {**tiny.settings(workplace, tmp_path / "run"), "teacher": str(tmp_path / "teacher"), "grid": None}
    with pytest.raises(UserError, match="has an encoder and a decoder"):
        minidisc.compress(**{**flags, "schedule": "direct", "student": "layers"})


def test_a_teacher_loads_with_its_own_code(workplace, plain, tmp_path):
    tuned(workplace, plain, tmp_path / "teacher", t5_form="enct5")
    assert (tmp_path / "teacher" / "t5_classifiers.py").is_file()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher")
    assert type(model).__name__ == "EncT5ForSequenceClassification"
