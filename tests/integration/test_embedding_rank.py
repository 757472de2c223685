"""--embedding-rank: what is saved, and what is told of it."""

import pytest
from safetensors.torch import load_file

import minidisc
from minidisc.errors import UserError
from minidisc.sizes import extract_size
from tests.integration import tiny

TABLE = "bert.embeddings.word_embeddings"


@pytest.fixture(scope="module")
def run(workplace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("thin")
    changes = {"embedding_rank": 6, "trim_vocabulary": True, "assistants": (0.5,)}
    return minidisc.compress(**tiny.settings(workplace, folder / "run", **changes))


def parameters(folder):
    return sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())


def test_what_is_saved_is_thin(run, tmp_path):
    extract_size(run.output_dir, 0.25, tmp_path / "extracted")
    for folder in (*(model.path for model in [*run.assistants, run.student]), tmp_path / "extracted"):
        tensors = load_file(folder / "model.safetensors")
        assert tensors[f"{TABLE}.weight"].shape[1] == 6
        assert tensors[f"{TABLE}.expand.weight"].shape == (32, 6)
    for model in [*run.assistants, run.student]:
        assert model.sizes.all == parameters(model.path)
    row = next(row for row in run.candidates if row["sparsity"] == 0.75)
    assert row["sizes"]["all"] == run.student.sizes.all
    # It has learnt more than chance, by which half of the rows would be right.
    assert run.student.metrics["accuracy"] > 0.7


def test_the_teacher_is_the_whole_one(run, workplace):
    assert run.teacher.sizes.all == parameters(workplace / "teacher")
    assert run.results["embeddings"]["rank"] == 6
    assert 0 < run.results["embeddings"]["error"] < 1
    assert "word embeddings of rank 6" in (run.output_dir / "report.html").read_text()
    assert "Word embeddings are of rank 6" in (run.student.path / "README.md").read_text()


def test_a_budget_counts_them(workplace, tmp_path, run):
    changes = {"embedding_rank": 6, "target_sparsity": None, "target_params": "9000", "epochs": 1}
    result = minidisc.compress(**tiny.settings(workplace, tmp_path / "run", **changes))
    assert parameters(result.student.path) <= 9000
    with pytest.raises(UserError, match="saves nothing"):
        minidisc.compress(**tiny.settings(workplace, tmp_path / "other", embedding_rank=31))
    assert not (tmp_path / "other").exists()
