"""A language model from fine-tuning to a student that writes, in a language that a tiny model learns in seconds."""

import json
import math
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import minidisc
from minidisc.cli.main import main
from minidisc.errors import UserError
from minidisc.preparation import Preparation
from minidisc.trainer import SandwichTrainer
from minidisc.writing import write_documents
from tests.integration import tiny

# Who does what to whom; a verb says what may follow.
NAMES, FOLLOWS = ["anna", "beno", "cleo"], {"eats": ["bread", "fish"], "reads": ["books", "maps"], "sees": ["stars"]}
WORDS = ["<s>", "</s>", *NAMES, *FOLLOWS, *(noun for nouns in FOLLOWS.values() for noun in nouns), "and", "never"]
LENGTH = 12


def document(generator):
    words = []
    while not words or generator.random() < 0.6:
        verb = generator.choice(list(FOLLOWS))
        words += [generator.choice(NAMES), verb, generator.choice(FOLLOWS[verb]), "and"]
    return " ".join(words[:-1])


def write_backbone(folder):
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="never"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", padding_side="left"
    ).save_pretrained(
        folder  # as Llama's own
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with texts, an untrained model, and the teacher that the command makes of it."""
    folder = tmp_path_factory.mktemp("texts")
    generator = random.Random(0)
    for split, count in (("train", 250), ("validation", 80)):
        (folder / f"{split}.txt").write_text("\n\n".join(document(generator) for _ in range(count)))
    write_backbone(folder / "backbone")
    main(
        [
            *("finetune", "--model", str(folder / "backbone"), "--output-dir", str(folder / "teacher")),
            *("--task", "causal-lm", "--epochs", "12", "--learning-rate", "3e-3", "--batch-size", "16"),
            *("--train-file", str(folder / "train.txt"), "--validation-file", str(folder / "validation.txt")),
            *("--max-length", str(LENGTH), "--device", "cpu"),
        ]
    )
    return folder


def settings(place, run, **changes):
    own = tiny.settings(place, run, dropout=0.0, max_length=LENGTH, target_sparsity=0.5, grid=(0.25,))
    files = {f"{split}_file": str(place / f"{split}.txt") for split in ("train", "validation")}
    return {**own, **files, "task": "causal-lm", **changes}


@pytest.fixture(scope="module")
def written(place, tmp_path_factory):
    """A run on text that the teacher wrote."""
    run = tmp_path_factory.mktemp("runs") / "run"
    return minidisc.compress(**settings(place, run, train_file=None, train_text="generate:100", teacher_top_k=5))


def scored(folder, place):
    """Perplexity and accuracy with nothing of minidisc but the model's class."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = (place / "validation.txt").read_text().split("\n\n")
    # The tokenizer has a beginning for every text, but no end.
    stream = torch.tensor([token for text in texts for token in [*tokenizer(text)["input_ids"], 1]])
    losses, right = [], []
    for ids in stream[: len(stream) // LENGTH * LENGTH].view(-1, LENGTH):
        with torch.no_grad():
            output = model(ids[None], labels=ids[None])
        losses.append(output.loss)
        right.append(output.logits[0, :-1].argmax(-1) == ids[1:])
    return {
        "perplexity": math.exp(torch.stack(losses).mean()),
        "next_token_accuracy": torch.cat(right).float().mean().item(),
    }


def test_the_teacher_learns_the_language(place):
    # There is a choice of three names or verbs, and then of two nouns at the most; the words between are sure.
    figures = scored(place / "teacher", place)
    assert figures["perplexity"] < 3
    assert scored(place / "backbone", place)["perplexity"] > 8


@pytest.mark.parametrize("model", ["teacher", "student"])
def test_texts_end(written, place, model):
    """Also those of a student that has seen texts of which some were cut."""
    folder = place / "teacher" if model == "teacher" else written.student.path
    torch.manual_seed(0)
    ids = AutoModelForCausalLM.from_pretrained(folder).generate(
        torch.zeros(200, 1, dtype=torch.long),
        attention_mask=torch.ones(200, 1, dtype=torch.long),
        generation_config=GenerationConfig(max_new_tokens=31, do_sample=True, top_k=0, eos_token_id=1, pad_token_id=1),
    )
    ended, begun = (ids[:, 1:] == 1).any(1), (ids[:, 1:] == 0).any(1)
    assert ended.float().mean() > 0.8
    assert begun.float().mean() < 0.2


def test_text_that_was_cut_says_so(written):
    rows = [json.loads(line) for line in (written.output_dir / "text" / "train.jsonl").read_text().splitlines()]
    # Words are tokens here; a text begins with one more.
    for row in rows:
        words = len(row["text"].split())
        assert words == LENGTH - 1 if row.get("cut_at_length") else words < LENGTH - 1
    assert 0 < sum("cut_at_length" in row for row in rows) < len(rows)


def test_figures_are_those_of_the_saved_models(written, place):
    for result in (written.teacher, *written.assistants, written.student):
        expected = scored(result.path, place)
        for name, value in expected.items():
            assert result.metrics[name] == pytest.approx(value, rel=1e-4)
        assert result.metrics["metric"] == result.metrics["next_token_accuracy"]
        assert AutoConfig.from_pretrained(result.path).use_cache


def test_the_text_is_the_teachers(written):
    lines = (written.output_dir / "text" / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line)["text"] for line in lines]
    assert 90 <= len(rows) <= 100
    assert len(set(rows)) > 30
    pairs = {(verb, noun) for verb, nouns in FOLLOWS.items() for noun in nouns}
    found = [tuple(row.split()[1:3]) for row in rows if len(row.split()) >= 3]
    # Of random words five pairs in 169 would be right.
    assert sum(pair in pairs for pair in found) > 0.5 * len(found)
    assert written.results["settings"]["train_text"] == "generate:100"
    assert written.results["rows"]["train"]["source"] == "train.jsonl"


def test_every_size_can_be_taken_out(written, place, tmp_path):
    for row in written.candidates:
        size = tmp_path / f"{row['sparsity']}"
        main(["extract", str(written.output_dir), "--sparsity", str(row["sparsity"]), "--output-dir", str(size)])
        assert scored(size, place)["next_token_accuracy"] > 0.3
        count = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(size).parameters())
        assert count == row["sizes"]["all"]
    student = AutoModelForCausalLM.from_pretrained(written.student.path).state_dict()
    taken = AutoModelForCausalLM.from_pretrained(tmp_path / "0.5").state_dict()
    assert all(torch.equal(value, student[name]) for name, value in taken.items())


def test_the_teacher_ran_once_on_every_row(written):
    assert "outputs of teacher" in written.results["cost"]["stages"]


def test_a_teacher_that_is_dropped_makes_the_same_student(place, written, tmp_path, monkeypatch):
    """Embeddings and output layer are one, also where the weights are dropped and come back."""
    dropped = []
    monkeypatch.setattr(Preparation, "drop_teacher", lambda _: dropped.append(1))
    options = settings(place, tmp_path / "run", train_file=None, train_text="generate:100", teacher_top_k=5)
    kept = minidisc.compress(**options)
    assert dropped
    weights = [result.student.path / "model.safetensors" for result in (kept, written)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert kept.teacher.metrics == written.teacher.metrics


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("top_k", [None, 5])
def test_planned_flops_are_those_that_are_spent(place, tmp_path, top_k):
    # Every row has as many tokens, and no candidate is drawn: nothing is left to chance.
    options = settings(
        place, tmp_path / "run", schedule="direct", patience=99, candidates_per_step="all", teacher_top_k=top_k
    )
    planned = minidisc.plan(**options)
    assert not (tmp_path / "run").exists()
    assert planned.estimate.flops == pytest.approx(minidisc.compress(**options).cost.flops, rel=0.03)


def test_a_dry_run_has_no_text_of_the_teacher(place, tmp_path):
    options = settings(place, tmp_path / "run", train_file=None, train_text="generate:100")
    with pytest.raises(UserError, match="--dry-run writes nothing"):
        minidisc.plan(**options)
    assert not (tmp_path / "run").exists()


def test_writing_goes_on_where_it_was_killed(place, written, tmp_path, monkeypatch):
    from minidisc import writing

    run, texts = tmp_path / "run", writing._texts
    options = settings(place, run, train_file=None, train_text="generate:100", teacher_top_k=5)
    calls = []

    def killed(*args):
        calls.append(args[-1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return texts(*args)

    monkeypatch.setattr(writing, "_texts", killed)
    with pytest.raises(KeyboardInterrupt):
        minidisc.compress(**options)
    result = minidisc.compress(**options)
    assert calls[0] not in calls[1:]
    for name in ("text/train.jsonl", "student/model.safetensors"):
        assert (run / name).read_bytes() == (written.output_dir / name).read_bytes()
    assert result.student.metrics == written.student.metrics


def test_training_goes_on_where_it_was_killed(place, written, tmp_path, monkeypatch):
    """Embeddings and output layer are one: a checkpoint has them once."""
    train_batch, calls = SandwichTrainer.train_batch, []

    def killed(self, *args):
        calls.append(self.state.global_step)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return train_batch(self, *args)

    monkeypatch.setattr(SandwichTrainer, "train_batch", killed)
    options = settings(place, tmp_path / "run", train_file=None, train_text="generate:100", teacher_top_k=5)
    with pytest.raises(KeyboardInterrupt):
        minidisc.compress(**options)
    minidisc.compress(**options, resume=True)
    # Each of the two stages began once.
    assert calls[12] <= calls[11]
    assert calls.count(0) == 2
    student = (tmp_path / "run" / "student" / "model.safetensors").read_bytes()
    assert student == (written.student.path / "model.safetensors").read_bytes()


def test_uniform_widths_make_a_plain_checkpoint(place, tmp_path):
    result = minidisc.compress(**settings(place, tmp_path / "run", widths="uniform", teacher_cache=0))
    assert result.student.spec.heads == (2, 2, 2)
    assert result.student.spec.neurons == (32, 32, 32)
    for model in (result.student, *result.assistants):
        config = json.loads((model.path / "config.json").read_text())
        assert (config["model_type"], config["architectures"]) == ("llama", ["LlamaForCausalLM"])
        assert not list(model.path.glob("*.py"))
        assert "trust_remote_code" not in (model.path / "README.md").read_text()
        assert model.sizes.all == sum(v.numel() for v in load_file(model.path / "model.safetensors").values())


@pytest.mark.parametrize(("heads", "fewer"), [(2, 26), (3, 10)])
def test_a_student_that_is_no_plain_checkpoint_after_all_is_told(place, tmp_path, caplog, heads, fewer):
    """A hidden size of 32 is a multiple of two heads, but not of three."""
    whole = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(place / "teacher").parameters())
    # Of three layers: a head has 4 × 8 × 32 weights, a neuron 3 × 32.
    limit = whole - 3 * ((4 - heads) * 1024 + fewer * 96)
    options = settings(place, tmp_path / "run", widths="uniform", schedule="direct", max_steps=1, teacher_cache=0)
    with caplog.at_level("INFO", logger="minidisc"):
        result = minidisc.compress(**{**options, "target_sparsity": None, "grid": None, "target_params": str(limit)})
    assert {*result.student.spec.heads} == {heads}
    told = [line for line in caplog.messages if "LlamaConfig does not take 3 of 4 heads a layer" in line]
    assert len(told) == (heads == 3) == (result.student.path / "modeling_minidisc.py").exists()
    # A dry run knows it of a given size.
    caplog.clear()
    sparsity = result.student.sparsity
    with caplog.at_level("INFO", logger="minidisc"):
        minidisc.plan(**{**options, "target_sparsity": sparsity, "grid": None})
    assert [line for line in caplog.messages if "code file after all" in line] == told


@pytest.mark.parametrize(("save_dtype", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_students_in_half_precision(place, tmp_path, save_dtype, dtype):
    """Figures are those of the weights that were saved, which those in fp32 do not have."""
    options = settings(place, tmp_path / "run", train_file=None, train_text="generate:100", teacher_top_k=5)
    widths = {"widths": "uniform"} if save_dtype == "fp16" else {}
    result = minidisc.compress(**options, save_dtype=save_dtype, assistants=(0.25,), **widths)
    main(["extract", str(result.output_dir), "--sparsity", "0.25", "--output-dir", str(tmp_path / "size")])
    for folder in (result.student.path, result.assistants[0].path, tmp_path / "size"):
        weights = load_file(folder / "model.safetensors")
        assert {value.dtype for value in weights.values()} == {dtype}
        assert json.loads((folder / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
        assert AutoModelForCausalLM.from_pretrained(folder).dtype == dtype
        assert f"rounded to {save_dtype}" in (folder / "README.md").read_text()
    assistant = load_file(result.assistants[0].path / "model.safetensors")
    assert all(
        torch.equal(value, assistant[name])
        for name, value in load_file(tmp_path / "size" / "model.safetensors").items()
    )
    for model in (result.student, *result.assistants):
        assert model.metrics["perplexity"] == pytest.approx(scored(model.path, place)["perplexity"], rel=2e-6)
    whole = minidisc.compress(**{**options, "output_dir": str(tmp_path / "whole")}, assistants=(0.25,), **widths)
    assert whole.student.metrics["perplexity"] != pytest.approx(result.student.metrics["perplexity"], rel=1e-5)
    saved = load_file(whole.student.path / "model.safetensors"), load_file(result.student.path / "model.safetensors")
    assert all(torch.equal(value.to(dtype), saved[1][name]) for name, value in saved[0].items())


def test_what_the_commands_print(written, place, capsys):
    main(
        [
            *("evaluate", "--model", str(written.student.path), "--validation-file", str(place / "validation.txt")),
            *("--max-length", str(LENGTH), "--device", "cpu"),
        ]
    )
    line = capsys.readouterr().out
    assert f"perplexity {written.student.metrics['perplexity']:.3f}" in line
    assert f"rows of {LENGTH} tokens of validation.txt" in line
    card = (written.student.path / "README.md").read_text()
    assert "pipeline_tag: text-generation" in card
    assert "AutoModelForCausalLM" in card
    assert f"validation rows of up to {LENGTH} tokens" in card


@pytest.mark.parametrize(("asked", "expected"), [(8, 8), (16, 16)])
def test_an_evaluation_says_how_long_its_rows_are(written, place, capsys, asked, expected):
    flags = ["--model", str(written.student.path), "--validation-file", str(place / "validation.txt"), "--json"]
    main(["evaluate", *flags, "--max-length", str(asked), "--device", "cpu"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["tokens_per_row"] == expected
    tokenizer = AutoTokenizer.from_pretrained(written.student.path)
    texts = (place / "validation.txt").read_text().split("\n\n")
    assert answer["rows"] == sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts) // expected


def test_it_is_not_exported(written, place, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    files = ["--validation-file", str(place / "validation.txt"), "--output-dir", str(tmp_path / "exported")]
    files += ["--max-length", str(LENGTH)]
    with pytest.raises(SystemExit) as stop:
        main(["export", "--model", str(written.student.path), *files])
    assert stop.value.code == 2
    assert "a language model cannot be exported" in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "classification"}, ["predicts the next token", "the task is classification"]),
        ({"loss": "pkd"}, ["--loss pkd", "hidden+logits"]),
        ({"importance_on": "teacher"}, ["--importance-on teacher"]),
        ({"train_text": "generate:5", "train_file": None}, ["generate:N, N from 64 on"]),
        ({"train_text": "generate:100"}, ["--train-text and --train-file"]),
        ({"teacher_top_k": 0}, ["--teacher-top-k is 0"]),
        ({"widths": "equal"}, ["--widths is 'equal'", "uniform"]),
        ({"max_train_rows": 20}, ["5 of 20", "--select-on validation"]),
    ],
)
def test_bad_input(place, tmp_path, capsys, changes, words):
    values = settings(place, tmp_path / "run", **changes)
    if changes.get("task"):
        # Rows that have labels, or the rows would be what is wrong.
        tiny.write_rows(tmp_path)
        values |= {"train_file": str(tmp_path / "train.csv"), "validation_file": str(tmp_path / "validation.csv")}
    flags = []
    for name, value in values.items():
        if value is not None:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            flags += [f"--{name.replace('_', '-')}", text]
    with pytest.raises(SystemExit) as stop:
        main(["compress", *flags])
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip()
    assert len(line.splitlines()) == 1
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_text_that_is_there_is_left_alone(place, written, tmp_path):
    """Of other settings it may have taken hours; of somebody else's it is none of ours."""
    options = settings(place, written.output_dir, train_file=None, train_text="generate:100", teacher_top_k=5)
    before = {path: path.read_bytes() for path in (written.output_dir / "text").iterdir()}
    with pytest.raises(UserError, match=r"length was 12 and is now 10.*or delete it"):
        minidisc.compress(**{**options, "max_length": 10}, resume=True)
    assert {path: path.read_bytes() for path in (written.output_dir / "text").iterdir()} == before

    for name in ("text/thesis.txt", "thesis.txt"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("years of work")
        with pytest.raises(UserError, match="give another"):
            minidisc.compress(**{**options, "output_dir": str(folder)})
        assert (folder / name).read_text() == "years of work"
        assert not (folder / "text" / "train.jsonl").exists()


def test_text_that_does_not_say_what_was_cut_is_left_alone(place, written, tmp_path):
    """A run of an earlier version, killed while the teacher wrote: all of that would seem to have come to its end."""
    text = tmp_path / "run" / "text"
    shutil.copytree(written.output_dir / "text", text)
    made_by = json.loads((text / "made_by.json").read_text())
    del made_by["says what was cut"]
    (text / "made_by.json").write_text(json.dumps(made_by))
    options = settings(place, tmp_path / "run", train_file=None, train_text="generate:100", teacher_top_k=5)
    with pytest.raises(UserError, match="says what was cut was None and is now True"):
        minidisc.compress(**options)


def test_text_outlives_a_budget_that_cannot_be_kept(place, written, tmp_path):
    shutil.copytree(written.output_dir / "text", tmp_path / "run" / "text")
    options = settings(place, tmp_path / "run", train_file=None, train_text="generate:100", teacher_top_k=5)
    options |= {"target_sparsity": None, "target_params": "10", "grid": None}
    with pytest.raises(UserError, match="cannot be had"):
        minidisc.compress(**options)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["text"]


def test_text_is_drawn_from_the_models_own_probabilities(place, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(place / "teacher")
    # What many checkpoints have for those who chat with them; as cold as this it says one thing only.
    model.generation_config = GenerationConfig(temperature=0.01, top_p=0.1, repetition_penalty=2.0)
    tokenizer = AutoTokenizer.from_pretrained(place / "teacher")
    files = write_documents(tmp_path, lambda: (model, tokenizer), {"train": 64}, LENGTH, 0, lambda line: None)
    firsts = [json.loads(line)["text"].split()[0] for line in files["train"].read_text().splitlines()]
    assert {*firsts} >= {*NAMES}
