"""Exported folders: what they compute, in a fresh process too, and what is refused."""

import importlib
import json
import runpy
import shutil
import subprocess
import sys
from types import SimpleNamespace

import datasets
import numpy as np
import onnx
import pytest
import torch
from huggingface_hub import ModelCard
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

import minidisc
from minidisc.cli.main import main
from minidisc.exporting import engines, graph
from minidisc.extraction import extract, save_small
from minidisc.files import read_json
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import Task, encode
from tests.integration import tiny
from tests.unit.families import T5, t5_tokenizer

# No heads in the first layer, no neurons in the last.
SPEC = SubnetworkSpec(0.7, (0, 1, 2), (8, 12, 0))
TEXTS = ["fine warm word3 dull word7", "cold", "word1 word2 clumsy flat bright word5 word6"]
# The package's name for it is the function.
MODULE = importlib.import_module("minidisc.exporting.export")
ALONE = """
import sys
for name in ("torch", "transformers", "minidisc"):
    sys.modules[name] = None  # an import fails
sys.argv = sys.argv[1:]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"), {"__file__": sys.argv[0]})
"""


@pytest.fixture(scope="module")
def student(workplace, tmp_path_factory):
    """A student, by the teacher's side, cut from it without training."""
    folder = tmp_path_factory.mktemp("student") / "student"
    teacher = minidisc.from_pretrained(workplace / "teacher")
    save_small(extract(teacher, SPEC), AutoTokenizer.from_pretrained(workplace / "teacher"), folder)
    return folder


@pytest.fixture(scope="module")
def exported(workplace, student, tmp_path_factory):
    """The student's folder in ONNX, with int8, made by the command."""
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    main(["export", *flags(workplace, student), "--output-dir", str(folder), "--int8", "--max-drop", "0.2"])
    return folder


def flags(workplace, model):
    """What every export of these tests is given."""
    rows = str(workplace / "validation.csv")
    return ["--model", str(model), "--validation-file", rows, "--max-length", "16"]


def run_example(folder, *arguments):
    """Lines that the example prints in a process without torch, transformers and minidisc."""
    command = [sys.executable, "-c", ALONE, str(folder / "example.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_what_is_in_the_folder(exported):
    names = {file.name for file in exported.iterdir()}
    assert names >= {"model.onnx", "model_int8.onnx", "tokenizer.json", "config.json", "example.py", "export.json"}
    assert not any(name.endswith((".safetensors", ".data")) for name in names)
    config = read_json(exported / "config.json")
    assert config["id2label"] == {"0": "contra", "1": "pro"}
    assert "auto_map" not in config
    onnx.checker.check_model(str(exported / "model.onnx"))


def test_the_card_says_what_export_json_says(exported):
    card = ModelCard.load(exported / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("onnx", "text-classification")
    record = read_json(exported / "export.json")
    for name, engine in record["engines"].items():
        (line,) = [line for line in card.text.splitlines() if line.startswith(f"| {name} |")]
        assert f" {engine['metrics']['accuracy']:.4f} " in line
        assert f" {engine['latency']['32']['milliseconds']:.2f} " in line
    (result,) = card.data.eval_results
    assert result.metric_value == round(record["engines"]["onnx int8"]["metrics"]["accuracy"], 6)
    assert result.dataset_split == "validation.csv"


def test_empty_layers_are_not_in_the_graph(exported):
    model = onnx.load(exported / "model.onnx")
    assert all(0 not in tensor.dims for tensor in model.graph.initializer)
    # Of three layers one has no heads.
    assert sum(node.op_type == "Softmax" for node in model.graph.node) == 2
    shapes = [[d.dim_param for d in value.type.tensor_type.shape.dim] for value in model.graph.input]
    assert all(all(shape) for shape in shapes), "an axis is fixed"


def test_the_engine_computes_what_pytorch_computes(exported, student):
    model, tokenizer = minidisc.from_pretrained(student), AutoTokenizer.from_pretrained(exported)
    engine = engines.Engine(exported / "model.onnx", 1)
    for texts in (TEXTS[:1], TEXTS, TEXTS * 5):
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs).logits
        torch.testing.assert_close(engine(**inputs).logits, expected, atol=1e-5, rtol=0)


def test_what_export_json_says(exported, workplace, student, capsys):
    record = read_json(exported / "export.json")
    # Not where it lies: what is pushed tells nobody whose home that was.
    assert record["model"] == student.name
    assert record["rows"] == {"source": "validation.csv", "count": 60, "max_length": 16}
    assert list(record["engines"]) == ["pytorch", "onnx", "onnx int8"]
    main(["evaluate", *flags(workplace, student), "--json"])
    expected = json.loads(capsys.readouterr().out)["metrics"]
    for name, file in (("onnx", "model.onnx"), ("onnx int8", "model_int8.onnx")):
        engine = record["engines"][name]
        assert engine["bytes"] == (exported / file).stat().st_size
        assert abs(engine["metrics"]["accuracy"] - expected["accuracy"]) <= (0.2 if "int8" in name else 0)
    assert record["engines"]["pytorch"]["metrics"] == expected
    assert record["engines"]["pytorch"]["bytes"] == (student / "model.safetensors").stat().st_size
    assert 0 < record["engines"]["onnx"]["largest_difference"] <= 1e-4
    assert record["engines"]["onnx"]["largest_difference"] < record["engines"]["onnx int8"]["largest_difference"]
    for engine in record["engines"].values():
        assert list(engine["latency"]) == ["1", "32"]
        assert all(timing["milliseconds"] > 0 for timing in engine["latency"].values())


def test_the_example_runs_alone(exported, student):
    session = engines.Engine(exported / "model_int8.onnx", 1)
    inputs = AutoTokenizer.from_pretrained(student)(TEXTS, padding=True, return_tensors="pt")
    expected = session(**inputs).logits.softmax(1).max(1)
    lines = run_example(exported, *TEXTS)
    assert [line.split()[0] for line in lines] == [["contra", "pro"][i] for i in expected.indices]
    np.testing.assert_allclose([float(line.split()[1]) for line in lines], expected.values, atol=1e-4)
    assert [line.split(maxsplit=2)[2] for line in lines] == TEXTS
    assert len(run_example(exported)) == 1


def test_token_classification(tmp_path):
    torch.manual_seed(0)
    tags = ("O", "B-PER", "I-PER")
    config = BertConfig(
        vocab_size=46, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label=dict(enumerate(tags)), label2id={tag: i for i, tag in enumerate(tags)}, initializer_range=0.5,
    )  # fmt: skip
    model = BertForTokenClassification(config).eval()
    model.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    rows = [{"tokens": ["dull", "unheard", "fine"], "ner_tags": ["O", "B-PER", "I-PER"]}, *(
        {"tokens": ["word1"] * n, "ner_tags": ["O"] * n} for n in range(1, 6)
    )]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "onnx"
    main(["export", "--model", str(tmp_path / "model"), "--validation-file", str(tmp_path / "rows.jsonl"),
          "--output-dir", str(output)])  # fmt: skip
    assert read_json(output / "export.json")["engines"]["onnx"]["largest_difference"] <= 1e-4
    inputs = tiny.tokenizer()("dull unheard fine", return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits[0, 1:-1].argmax(-1)
    (line,) = run_example(output, "dull unheard fine")
    assert line == str([(w, tags[i]) for w, i in zip(["dull", "unheard", "fine"], expected, strict=True)])


def test_a_text_with_t5s_end_token_leaves_its_neighbours_answers_alone(tmp_path):
    """In a graph transformers no longer checks that all rows have as many."""
    model = T5.model(eos_token_id=1, num_hidden_layers=1, num_decoder_layers=1, id2label={0: "contra", 1: "pro"})
    model.save_pretrained(tmp_path / "model")
    t5_tokenizer().save_pretrained(tmp_path / "model")
    # Two ends more would be two a row.
    texts = ["fine warm", "</s> warm </s> plot"]
    for name, text in zip(("rows", "ends"), texts, strict=True):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{text},pro\nfine plot,contra\n")
    command = ["--model", str(tmp_path / "model"), "--validation-file"]
    main(["export", *command, str(tmp_path / "rows.csv"), "--output-dir", str(tmp_path / "onnx")])
    with torch.no_grad():
        alone = model(**t5_tokenizer()(texts[0], return_tensors="pt")).logits.softmax(1)[0]
    together = run_example(tmp_path / "onnx", *texts)
    assert len(together) == 2
    assert together[0] == f"{('contra', 'pro')[alone.argmax()]} {alone.max():.4f} {texts[0]}"
    main(["evaluate", *command, str(tmp_path / "ends.csv")])


def test_regression_of_large_numbers(tmp_path, capsys, monkeypatch):
    """Of 2000 single precision keeps no difference of 1e-4."""
    model = tiny.backbone(num_labels=1, num_hidden_layers=1)
    with torch.no_grad():
        model.classifier.weight *= 1e4
        model.classifier.bias.fill_(2000)
    model.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    rows = "".join(f"word{i} {'fine dull ' * (i % 4)},{1500.5 + 50 * i}\n" for i in range(20))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    command = ["export", "--model", str(tmp_path / "model"), "--validation-file", str(tmp_path / "rows.csv")]
    main([*command, "--output-dir", str(tmp_path / "onnx")])
    assert 1e-4 < read_json(tmp_path / "onnx" / "export.json")["engines"]["onnx"]["largest_difference"] < 0.1
    # One that is off by a hundredth.
    cheap(monkeypatch, tmp_path / "onnx")
    call = engines.Engine.__call__
    monkeypatch.setattr(
        engines.Engine, "__call__", lambda *args, **inputs: SimpleNamespace(logits=1.01 * call(*args, **inputs).logits)
    )
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--output-dir", str(tmp_path / "off")])
    assert stopped.value.code == 1
    assert "and 2e-01 is allowed" in capsys.readouterr().err


def words_as_in_qwen():
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s?\p{L}+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    letters = pre_tokenizers.ByteLevel.alphabet()
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(["dull unheard fine"] * 9, BpeTrainer(vocab_size=300, initial_alphabet=letters))
    return PreTrainedTokenizerFast(tokenizer_object=core)


def changed(**settings):
    tokenizer = tiny.tokenizer()
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "kind"),
    [
        (changed(), "classification"),
        (changed(pad_token=None), "classification"),
        (changed(truncation_side="left"), "classification"),
        (changed(split_special_tokens=True), "classification"),
        (changed(), "token-classification"),
        (words_as_in_qwen(), "token-classification"),
    ],
    ids=["usual", "without padding", "cut on the left", "special tokens as text", "words", "words with their space"],
)
def test_the_example_reads_the_tokens_that_the_model_was_trained_on(tmp_path, monkeypatch, capsys, tokenizer, kind):
    task = Task("t", kind, ("text",), "label", ("a", "b"), True, ("accuracy",))
    text = "dull 31 [SEP] fine warm word3 cold"
    columns = {"words": [text.split()]} if kind == "token-classification" else {"text_a": [text]}
    rows = encode(datasets.Dataset.from_dict(columns), tokenizer, 6)
    tokenizer.save_pretrained(tmp_path)
    config = SimpleNamespace(id2label=dict(enumerate("abcdef")))
    loaded = SimpleNamespace(tokenizer=tokenizer, model=SimpleNamespace(config=config))
    settings = SimpleNamespace(format="onnx")
    evaluation = SimpleNamespace(loaded=loaded, task=task, rows=rows, length=6)
    MODULE._write_example(settings, evaluation, {"onnx": tmp_path / "model.onnx"}, tmp_path)
    given = []

    class Session:
        def __init__(self, *_, **__):
            pass

        def run(self, _, inputs):
            given.append(inputs)
            return [np.eye(inputs["input_ids"].size)[None] if "words" in columns else np.zeros((1, 1))]

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    monkeypatch.setattr(sys, "argv", ["example.py", text])
    runpy.run_path(str(tmp_path / "example.py"))
    assert given[0]["input_ids"].tolist() == rows["input_ids"][:]
    if "words" in columns:  # of every token another label
        first = zip(text.split(), rows["first_tokens"][0], strict=True)
        assert capsys.readouterr().out == f"{[(word, 'abcdef'[i]) for word, i in first if i >= 0]}\n"


def cheap(monkeypatch, exported):
    """Let an export use the file that there is already."""
    monkeypatch.setattr(MODULE, "write_onnx", lambda model, inputs, path: shutil.copy(exported / path.name, path))


REFUSED = [
    ("gguf", ["--format", "gguf"], 2, "GGUF's engines run architectures they know by name"),
    ("unknown format", ["--format", "tflite"], 2, "allowed are onnx, openvino"),
    ("int8 of openvino", ["--format", "openvino", "--int8"], 2, "--int8 goes with --format onnx"),
    ("drop of more than all", ["--int8", "--max-drop", "2"], 2, "allowed is [0, 1)"),
    ("no output folder", [], 2, "--output-dir is missing"),
]


@pytest.mark.parametrize(("name", "more", "code", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_refused(workplace, student, tmp_path, capsys, name, more, code, words):
    output = [] if name == "no output folder" else ["--output-dir", str(tmp_path / "onnx")]
    refused(capsys, tmp_path, code, words, *flags(workplace, student), *more, *output)


def refused(capsys, folder, code, words, *arguments):
    """One line, the exit code, and nothing left."""
    with pytest.raises(SystemExit) as stopped:
        main(["export", *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == code
    assert error.startswith("minidisc: ")
    assert error.count("\n") == 1
    assert words in error
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("missing", "format", "words"),
    [("onnxscript", "onnx", "pip install 'minidisc[onnx]'"), ("openvino", "openvino", "pip install openvino")],
)
def test_missing_packages(workplace, student, tmp_path, capsys, monkeypatch, missing, format, words):
    found = engines.find_spec
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == missing else found(name))
    arguments = [*flags(workplace, student), "--format", format, "--output-dir", str(tmp_path / "onnx")]
    refused(capsys, tmp_path, 2, words, *arguments)


def test_other_logits_are_an_error(workplace, student, exported, tmp_path, capsys, monkeypatch):
    cheap(monkeypatch, exported)
    call = engines.Engine.__call__

    def shifted(self, **inputs):
        output = call(self, **inputs)
        output.logits += 2e-4
        return output

    monkeypatch.setattr(engines.Engine, "__call__", shifted)
    arguments = [*flags(workplace, student), "--output-dir", str(tmp_path / "onnx")]
    refused(capsys, tmp_path, 1, "differs from PyTorch's by 2.", *arguments)


def test_int8_that_loses_too_much_is_an_error(workplace, student, exported, tmp_path, capsys, monkeypatch):
    cheap(monkeypatch, exported)
    call = engines.Engine.__call__

    def turned(self, **inputs):
        output = call(self, **inputs)
        if self.path.name == "model_int8.onnx":
            output.logits = -output.logits
        return output

    monkeypatch.setattr(engines.Engine, "__call__", turned)
    arguments = [*flags(workplace, student), "--int8", "--output-dir", str(tmp_path / "onnx")]
    refused(capsys, tmp_path, 1, "and a loss of 0.01 is allowed", *arguments)


def test_a_file_that_the_engine_cannot_read(workplace, student, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(MODULE, "write_onnx", lambda model, inputs, path: path.write_bytes(b"no graph"))
    arguments = [*flags(workplace, student), "--output-dir", str(tmp_path / "onnx")]
    refused(capsys, tmp_path, 1, "ONNX Runtime cannot run the exported model", *arguments)


def test_a_model_that_cannot_be_traced(workplace, tmp_path):
    class Odd(torch.nn.Module):
        config = BertConfig()

        def forward(self, input_ids):
            raise TypeError("no such thing\nand more")

    inputs = {"input_ids": torch.ones(2, 3, dtype=torch.int64)}
    with pytest.raises(
        minidisc.UserError, match=r"'bert' cannot be exported by torch .* \(TypeError: no such thing\)"
    ):
        graph.write_onnx(Odd(), inputs, tmp_path / "x.onnx")
