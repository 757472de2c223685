"""One table of comparisons that ran apart, such as one for each seed on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minidisc.comparison.methods import read_method
from minidisc.comparison.table import Comparison, cell_title, markdown, of_cells, read_comparison
from minidisc.config import CompareSettings
from minidisc.errors import UserError
from minidisc.files import new_folder, write_json
from minidisc.runs import FREE, read_fingerprints, with_defaults
from minidisc.values import path_from, paths_from

# What may be another in each of them, and where it ran.
_OWN = ("seeds", "methods", "target_sparsities", "device", *FREE)


def gather(folders: Iterable[str | Path], output_dir: str | Path) -> Comparison:
    """Put the cells of several comparisons into one.

    Args:
        folders: those of the comparisons, of the same teacher, rows and settings; no cell may be in two of them. What
            was gathered before can be gathered with more.
        output_dir: where ``compare.json`` and ``compare.md`` are put.

    Raises:
        UserError: none is given, they do not go together, or the folder is there already.
    """
    folders, output_dir = paths_from("folder", folders), path_from("output_dir", output_dir)
    if not folders:
        raise UserError("no comparison is given; give the --output-dir of each.")
    if output_dir.exists():
        raise UserError(f"--output-dir {output_dir} exists; give a folder that does not exist yet.")
    found = [read_comparison(folder).content for folder in folders]
    fingerprints = [_fingerprints(folder, content) for folder, content in zip(folders, found, strict=True)]
    identities = [_identity(content) | own for content, own in zip(found, fingerprints, strict=True)]
    first = found[0]
    cells: dict[Any, dict[str, Any]] = {}
    for folder, content, identity in zip(folders, found, identities, strict=True):
        names = dict.fromkeys([*identity, *identities[0]])
        differing = [name for name in names if identity.get(name) != identities[0].get(name)]
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
            # Of a gathered table's cells each has its own.
            cells[key] = {"targets": sorted(content["settings"]["target_sparsities"]), **cell}
    check_targets(cells.values())
    # What failed on one machine may have been finished on another.
    finished = {cell_title(*key) for key in cells}
    methods = list(dict.fromkeys(method for content in found for method in content["settings"]["methods"]))
    content = {
        **first,
        **of_cells(cells.values(), {**first["settings"], "output_dir": str(output_dir)}, methods),
        "failures": {
            title: reason for each in found for title, reason in each["failures"].items() if title not in finished
        },
        "fingerprints": fingerprints[0],
        "warnings": list(dict.fromkeys(line for content in found for line in content.get("warnings", ()))),
    }
    with new_folder(output_dir) as temporary:
        (temporary / "compare.md").write_text(markdown(content), encoding="utf-8")
        write_json(temporary / "compare.json", content)
    return Comparison(output_dir, content)


def check_targets(cells: Iterable[dict[str, Any]]) -> None:
    """Refuse a mean over sandwiches that do not train the same targets' sizes.

    Args:
        cells: those of one teacher; ``targets`` are all target sparsities of the comparison that each was trained in.

    Raises:
        UserError: seeds of a method at a target are of comparisons with other targets.
    """
    first: dict[Any, dict[str, Any]] = {}
    for cell in cells:
        name, target = cell["method"], cell["target_sparsity"]
        other = first.setdefault((name, target), cell)
        if cell["targets"] != other["targets"] and read_method(name).shares_targets:
            there, here = (", ".join(f"{100 * t:g}" for t in each["targets"]) for each in (other, cell))
            seeds = other["seed"], cell["seed"]
            raise UserError(
                f"{name} at {100 * target:g} % is of a sandwich for {there} % with seed {seeds[0]}, and of one "
                f"for {here} % with seed {seeds[1]}; give comparisons in which it has the same --target-sparsities."
            )


def _identity(content: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same in all comparisons that are gathered, beside teacher and rows."""
    settings = with_defaults(CompareSettings, content["settings"])
    shared = {name: value for name, value in settings.items() if name not in _OWN}
    return {**shared, "metrics": content["task"]["metrics"]}


def _fingerprints(folder: Path, content: dict[str, Any]) -> dict[str, str]:
    """Those of teacher and rows; an older comparison has them in its ``run.yaml`` alone.

    Raises:
        UserError: they are in neither.
    """
    there = (folder / "run.yaml").is_file()
    found = content.get("fingerprints") or (read_fingerprints(folder) if there else None)
    if not found:
        raise UserError(
            f"{folder} does not say of which teacher and rows it is, and has no run.yaml that does; give the whole "
            "folder that 'minidisc compare' has made."
        )
    return dict(found)
