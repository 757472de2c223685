from minidisc.files import write_json
from minidisc.results import read_result


def model(path):
    sizes = {"prunable": 1, "without_embeddings": 2, "all": 3}
    widths = {"sparsity": 0.5, "heads": [1], "neurons": [2]}
    return {"path": path, "sizes": sizes, **widths, "metrics": {}, "selection_metrics": {}}


def test_a_moved_runs_models_are_those_in_its_folder(tmp_path):
    folder = tmp_path / "moved"
    names = ["assistant", "assistant-2"]
    written = {
        "teacher": model("/disk/teacher"),
        "assistants": [model(f"/disk/run/{name}") for name in names],
        # Of a run whose --output-dir was given from another place.
        "student": model("runs/run/student"),
        "candidates": [],
        "cost": {"total": {}},
    }
    write_json(folder / "results.json", written)
    result = read_result(folder)
    assert result.student.path == folder / "student"
    assert [assistant.path for assistant in result.assistants] == [folder / name for name in names]
    # Which --json prints.
    assert result.results["student"]["path"] == str(folder / "student")
    assert str(result.teacher.path) == result.results["teacher"]["path"] == "/disk/teacher"
