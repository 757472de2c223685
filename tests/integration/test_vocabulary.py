"""--trim-vocabulary: what is saved, and what is told of it."""

import csv

import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import minidisc
from minidisc.sizes import extract_size
from minidisc.tasks import read_table
from tests.integration import tiny

DROPPED = {f"word{i}" for i in range(8)}


@pytest.fixture(scope="module")
def run(workplace, tmp_path_factory):
    """A run whose training rows lack some words that validation rows have, and that its teacher takes for bad ones."""
    folder = tmp_path_factory.mktemp("trimmed")
    teacher = AutoModelForSequenceClassification.from_pretrained(workplace / "teacher")
    tokenizer = AutoTokenizer.from_pretrained(workplace / "teacher")
    pieces = teacher.get_input_embeddings().weight.data
    pieces[tokenizer.convert_tokens_to_ids(sorted(DROPPED))] = 2 * pieces[tokenizer.convert_tokens_to_ids(tiny.BAD[0])]
    teacher.save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    table = read_table(workplace / "train.csv")
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        rows = zip(table["text"], table["label"], strict=True)
        writer.writerows(row for row in rows if not DROPPED & set(row[0].split()))
    changes = {"train_file": str(folder / "train.csv"), "trim_vocabulary": True, "assistants": (0.5,)}
    changes["teacher"] = str(folder / "teacher")
    return minidisc.compress(**tiny.settings(workplace, folder / "run", **changes))


def test_what_is_saved_has_fewer_pieces(run, workplace, tmp_path):
    whole = AutoTokenizer.from_pretrained(workplace / "teacher")
    expected = set(whole.get_vocab()) - DROPPED
    extract_size(run.output_dir, 0.25, tmp_path / "extracted")
    for model in [*run.assistants, run.student]:
        assert set(AutoTokenizer.from_pretrained(model.path).get_vocab()) == expected
        tensors = load_file(model.path / "model.safetensors")
        assert model.sizes.all == sum(tensor.numel() for tensor in tensors.values())
        assert len(tensors["bert.embeddings.word_embeddings.weight"]) == len(expected)
        assert model.metrics["accuracy"] == pytest.approx(tiny.accuracy(model.path, workplace))
    assert set(AutoTokenizer.from_pretrained(tmp_path / "extracted").get_vocab()) == expected
    tiny.accuracy(tmp_path / "extracted", workplace)
    row = next(row for row in run.candidates if row["sparsity"] == 0.75)
    assert row["sizes"]["all"] == run.student.sizes.all


def test_the_teachers_figures_are_those_of_the_whole_one(run, workplace):
    accuracy = tiny.accuracy(run.teacher.path, workplace)
    assert run.teacher.metrics["accuracy"] == pytest.approx(accuracy)
    tensors = load_file(run.teacher.path / "model.safetensors")
    assert run.teacher.sizes.all == sum(tensor.numel() for tensor in tensors.values())
    confusion = np.array(run.results["contrast"]["teacher"])
    assert confusion.trace() / confusion.sum() == pytest.approx(accuracy)


def test_what_is_told(run, workplace):
    told, table = run.results["vocabulary"], read_table(workplace / "validation.csv")
    whole = AutoTokenizer.from_pretrained(workplace / "teacher")
    assert (told["of"], told["kept"]) == (len(whole), len(whole) - len(DROPPED))
    # As the rows are cut: 16 tokens, the first and the last of which are special.
    rows = [whole.tokenize(text)[:14] for text in table["text"]]
    assert told["rows"] == sum(bool(DROPPED & set(row)) for row in rows) > 0
    assert told["pieces"] == pytest.approx(
        sum(word in DROPPED for row in rows for word in row) / sum(len(row) + 2 for row in rows)
    )
    kept = f"{told['kept']} are"
    assert kept in (run.output_dir / "report.html").read_text()
    assert kept in (run.student.path / "README.md").read_text()
