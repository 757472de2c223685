"""Entities from fine-tuning to evaluation, in a language that a tiny model learns in seconds."""

import json
import random

import pytest
import torch
from seqeval.metrics import f1_score
from tokenizers import Tokenizer, decoders
from tokenizers.models import Unigram, WordPiece
from tokenizers.pre_tokenizers import Metaspace, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

import minidisc
from minidisc.cli.main import main
from tests.documentation import ROOT, blocks

# A title begins a person, a name goes on; a town is one of the places. Every name has two pieces.
TITLES, NAMES, TOWNS = ["dr", "mr"], ["anna", "beno", "cleo"], ["rome", "oslo"]
OTHER = ["sees", "and", "in", "today", "never", "left"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TITLES, *(name[:2] for name in NAMES), *(f"##{n[2:]}" for n in NAMES)]
CLS, SEP, LENGTH = 2, 3, 16


def sentence(generator):
    words, tags = [], []
    while len(words) < 3 or generator.random() < 0.6:
        kind = generator.randrange(4)
        if kind == 0:
            words += [generator.choice(TITLES), generator.choice(NAMES)]
            tags += ["B-PER", "I-PER"]
        elif kind == 1:
            words.append(generator.choice(TOWNS))
            tags.append("B-LOC")
        else:
            words.append(generator.choice(OTHER))
            tags.append("O")
    return {"tokens": words, "ner_tags": tags}


def word_piece():
    core = Tokenizer(WordPiece({piece: i for i, piece in enumerate([*PIECES, *TOWNS, *OTHER])}, unk_token="[UNK]"))
    core.pre_tokenizer = WhitespaceSplit()
    return core


def unigram():
    """As T5's: a blank stands alone before words that are no whole piece with it, here all but the titles."""
    pieces = [*PIECES[:4], "\u2581", *(f"\u2581{title}" for title in TITLES), *NAMES, *TOWNS, *OTHER]
    core = Tokenizer(Unigram([(piece, -1.0) for piece in pieces], unk_id=1))
    core.pre_tokenizer, core.decoder = Metaspace(), decoders.Metaspace()
    return core


def write_backbone(folder, core):
    core.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)])
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=core.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=2 * LENGTH,
    )
    BertForTokenClassification(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with rows, an untrained model, and the teacher that the command makes of it."""
    folder = tmp_path_factory.mktemp("entities")
    generator = random.Random(0)
    for split, count in (("train", 200), ("validation", 60)):
        rows = [sentence(generator) for _ in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_backbone(folder / "backbone", word_piece())
    main(["finetune", "--model", str(folder / "backbone"), "--output-dir", str(folder / "teacher"), *flags(folder)])
    return folder


def flags(folder, train=True, length=LENGTH):
    values = {"validation-file": folder / "validation.jsonl", "max-length": length, "device": "cpu"}
    if train:
        values |= {"train-file": folder / "train.jsonl", "epochs": 4, "learning-rate": 3e-3, "batch-size": 16}
    return [str(part) for name, value in values.items() for part in (f"--{name}", value)]


def compress(folder, **changes):
    return minidisc.compress(
        **{
            "teacher": str(folder / "teacher"),
            "train_file": str(folder / "train.jsonl"),
            "validation_file": str(folder / "validation.jsonl"),
            "target_sparsity": 0.75,
            "grid": (0.25, 0.5),
            "neuron_multiple": 1,
            "epochs": 2,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "max_length": LENGTH,
            "device": "cpu",
            **changes,
        }
    )


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    return compress(place, output_dir=str(tmp_path_factory.mktemp("runs") / "run"))


def counted(folder, place, limit=LENGTH):
    """Entity F1 with nothing of minidisc but the model's class: one sentence at a time, one word after the other."""
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    predictions, labels = [], []
    for line in (place / "validation.jsonl").read_text().splitlines():
        row = json.loads(line)
        ids, starts = [], []
        for word in row["tokens"]:
            starts.append(len(ids) + 1)
            ids += tokenizer(word, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[CLS, *ids[: limit - 2], SEP]])
        with torch.no_grad():
            logits = model(ids).logits[0]
        guess = [model.config.id2label[int(logits[i].argmax())] if i < ids.shape[1] - 1 else "O" for i in starts]
        predictions.append(guess)
        labels.append(row["ner_tags"])
    return f1_score(labels, predictions)


def test_the_teacher_learns_and_keeps_the_tags(place):
    config = json.loads((place / "teacher" / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["id2label"] == {"0": "O", "1": "B-LOC", "2": "I-LOC", "3": "B-PER", "4": "I-PER"}
    assert counted(place / "teacher", place) > 0.9


def test_metrics_are_those_of_the_saved_models(run, place):
    assert run.results["task"]["kind"] == "token-classification"
    assert run.teacher.metrics["entity_f1"] == pytest.approx(counted(place / "teacher", place))
    for model in [*run.assistants, run.student]:
        assert model.metrics["entity_f1"] == model.metrics["metric"] == pytest.approx(counted(model.path, place))
    assert run.student.metrics["entity_f1"] > 0.5
    assert not [line for line in run.results["warnings"] if not line.endswith("count as predicted O.")]


def test_the_student_tags_text(run):
    # A word's tag is that of its first piece.
    tagger = pipeline("token-classification", model=str(run.student.path), aggregation_strategy="first")
    text = "dr anna sees rome today"
    found = [(entity["entity_group"], text[entity["start"] : entity["end"]]) for entity in tagger(text)]
    assert found == [("PER", "dr anna"), ("LOC", "rome")]


def test_the_teachers_card_says_what_a_word_is(place):
    assert "is_split_into_words=True" in (place / "teacher" / "README.md").read_text()


@pytest.fixture(scope="module")
def with_blanks(place, tmp_path_factory):
    """The folder of a teacher whose tokenizer makes pieces that are only a blank."""
    folder = tmp_path_factory.mktemp("blanks")
    write_backbone(folder / "backbone", unigram())
    model = ("--model", str(folder / "backbone"), "--output-dir", str(folder / "teacher"))
    main(["finetune", *model, *flags(place, length=2 * LENGTH)])
    return folder / "teacher"


@pytest.mark.parametrize("page", ["card", "documentation"])
def test_the_lines_that_tag_words_read_the_tokens_that_were_scored(place, with_blanks, page):
    path = ROOT / "docs" / "your-own-data.md" if page == "documentation" else with_blanks / "README.md"
    (lines,) = (block.text for block in blocks(path) if "is_split_into_words" in block.text)
    # The page's first lines load a model, and make words of a text.
    lines = lines[lines.index("encoded = ") :].replace("max_length=128", f"max_length={2 * LENGTH}")
    tokenizer = AutoTokenizer.from_pretrained(with_blanks)
    printed = []
    names = {"model": minidisc.from_pretrained(with_blanks), "tokenizer": tokenizer, "print": printed.append}
    rows = [json.loads(line) for line in (place / "validation.jsonl").read_text().splitlines()]
    for row in rows:
        exec(lines, {**names, "words": row["tokens"]})
    assert [[word for word, _ in row] for row in printed] == [row["tokens"] for row in rows]
    told = json.loads((with_blanks / "finetune.json").read_text())["metrics"]["entity_f1"]
    assert told > 0.8
    assert f1_score([row["ner_tags"] for row in rows], [[tag for _, tag in row] for row in printed]) == told
    # A word that is nothing but a blank has its label there.
    exec(lines, {**names, "words": ["rome", " ", "today"]})
    assert [word for word, _ in printed[-1]] == ["rome", " ", "today"]


def test_evaluate_counts_what_was_cut_off_as_missed(run, place, capsys):
    arguments = ["evaluate", "--model", str(run.student.path), "--json", *flags(place, train=False)]
    main(arguments)
    whole = json.loads(capsys.readouterr().out)
    assert whole["metrics"] == run.student.metrics
    assert whole["rows"] == 60
    main([*arguments, "--max-length", "7"])
    cut = json.loads(capsys.readouterr().out)
    assert cut["metrics"]["entity_f1"] == pytest.approx(counted(run.student.path, place, limit=7))
    assert cut["metrics"]["entity_f1"] < whole["metrics"]["entity_f1"]


def test_rows_without_tags_may_be_trained_on(place, tmp_path):
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({"tokens": row["tokens"]}) + "\n" for row in rows)
    (tmp_path / "unlabelled.jsonl").write_text(text)
    result = compress(
        place,
        output_dir=str(tmp_path / "run"),
        train_file=str(tmp_path / "unlabelled.jsonl"),
        epochs=1,
        schedule="direct",
    )
    assert result.results["rows"]["train"]["count"] == 200
    assert result.student.metrics["entity_f1"] > 0.5
    assert result.results["rows"]["selection"]["count"] + result.results["rows"]["validation"]["count"] == 60


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        ("teacher", "classification", "BertForTokenClassification, which gives one label a word"),
        ("sentences", "token-classification", "BertForSequenceClassification, which gives one label a sentence"),
    ],
)
def test_a_model_with_the_wrong_head_is_refused(place, tmp_path, capsys, model, task, message):
    from tests.integration import tiny

    tiny.write_rows(tmp_path)
    tiny.backbone().save_pretrained(tmp_path / "sentences")
    tiny.tokenizer().save_pretrained(tmp_path / "sentences")
    folder = place / "teacher" if model == "teacher" else tmp_path / "sentences"
    rows = tmp_path / "validation.csv" if task == "classification" else place / "validation.jsonl"
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--model", str(folder), "--validation-file", str(rows), "--task", task])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
