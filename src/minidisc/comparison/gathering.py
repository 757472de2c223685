"""One table of comparisons that ran apart, such as one for each seed on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minidisc.comparison.table import Comparison, cell_title, markdown, of_cells, read_comparison
from minidisc.errors import UserError
from minidisc.files import new_folder, write_json
from minidisc.runs import read_fingerprints

# What may be another in each of them, and where it ran.
_OWN = ("seeds", "methods", "target_sparsities", "output_dir", "device", "keep_checkpoints")


def gather(folders: Sequence[Path], output_dir: Path) -> Comparison:
    """Put the cells of several comparisons into one.

    Args:
        folders: those of the comparisons, of the same teacher, rows and settings; no cell may be in two of them.
        output_dir: where ``compare.json`` and ``compare.md`` are put.

    Raises:
        UserError: they do not go together, or the folder is there already.
    """
    if output_dir.exists():
        raise UserError(f"--output-dir {output_dir} exists; give a folder that does not exist yet.")
    found = [read_comparison(folder).content for folder in folders]
    first, own = found[0], _identity(folders[0], found[0])
    cells: dict[Any, dict[str, Any]] = {}
    for folder, content in zip(folders, found, strict=True):
        differing = [name for name, value in _identity(folder, content).items() if value != own.get(name)]
        if differing:
            raise UserError(
                f"{folder} differs from {folders[0]} in {', '.join(differing)}; only comparisons of the same teacher, "
                "rows and settings can be gathered."
            )
        for cell in content["cells"]:
            key = cell["method"], cell["target_sparsity"], cell["seed"]
            if key in cells:
                raise UserError(
                    f"{folder} holds {key[0]} at {100 * key[1]:g} %, seed {key[2]}, once more; give it once."
                )
            cells[key] = cell
    # What failed on one machine may have been finished on another.
    finished = {cell_title(*key) for key in cells}
    methods = list(dict.fromkeys(method for content in found for method in content["settings"]["methods"]))
    content = {
        **first,
        **of_cells(cells.values(), {**first["settings"], "output_dir": str(output_dir)}, methods),
        "failures": {
            title: reason for each in found for title, reason in each["failures"].items() if title not in finished
        },
    }
    with new_folder(output_dir) as temporary:
        (temporary / "compare.md").write_text(markdown(content), encoding="utf-8")
        write_json(temporary / "compare.json", content)
    return Comparison(output_dir, content)


def _identity(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same in all comparisons that are gathered."""
    settings = {name: value for name, value in content["settings"].items() if name not in _OWN}
    return {**settings, **read_fingerprints(folder), "metrics": content["task"]["metrics"]}
