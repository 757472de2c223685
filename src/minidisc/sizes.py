"""`minidisc extract`: any size that a finished run has trained, without training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from minidisc.architectures import STUDENT_PREFIX, architecture_for
from minidisc.card import write_card
from minidisc.errors import UserError
from minidisc.extraction import extract, round_weights, write_small
from minidisc.files import new_folder
from minidisc.layers import whole_state
from minidisc.measure import Shape, sizes_of
from minidisc.results import read_result
from minidisc.runs import check_new
from minidisc.subnetworks import SubnetworkSpec
from minidisc.teachers import load_model
from minidisc.values import number_from, path_from


def extract_size(run: str | Path, sparsity: float | str, output_dir: str | Path) -> dict[str, Any]:
    """Take a size out of a finished run, as a model folder like ``RUN/student``.

    Args:
        run: folder of the run.
        sparsity: one that the run has trained. Where several of its stages have, their best on the selection rows is
            taken; of equal ones the last, which for the target is ``RUN/student``.
        output_dir: where the model is put; must not exist, or be empty.

    Returns:
        The model as ``results.json`` would hold it, without ``metrics``, since it was not evaluated on the validation
        rows.

    Raises:
        UserError: the run is not finished or has kept no weights, the size was not trained, or the folder is in use.
    """
    run, output_dir = path_from("run", run), path_from("output_dir", output_dir)
    sparsity = number_from("sparsity", sparsity)
    results = read_result(run).results
    row = _row(run, results.get("kept", []), sparsity)
    check_new(output_dir)
    file = run / row["file"]
    try:
        weights = load_file(file)
    except (FileNotFoundError, SafetensorError):
        raise UserError(
            f"{file} is gone or damaged, which holds the weights of {100 * row['sparsity']:g} %; give another size."
        ) from None
    spec = SubnetworkSpec(row["sparsity"], tuple(row["heads"]), tuple(row["neurons"]))
    student = load_model(str(run / "student"))
    if "head_order" in row:
        student.model.config.head_order = row["head_order"]
    model = extract(student.model, spec, whole_state(student.model, weights))
    architecture = architecture_for(model.config.model_type.removeprefix(STUDENT_PREFIX))
    prunable = Shape.of(model, architecture).prunable(spec)
    entry = {
        **asdict(spec),
        "path": str(output_dir),
        "sizes": asdict(sizes_of(model, architecture, prunable)),
        "selection_metrics": row["selection_metrics"],
    }
    # Runs of older versions say nothing of it.
    dtype = results["settings"].get("save_dtype", "fp32")
    if not round_weights(model, dtype):
        dtype = "fp32"
    with new_folder(output_dir) as temporary:
        write_small(model, student.tokenizer, temporary, dtype)
        write_card(results, entry, temporary)
    return entry


def _row(run: Path, kept: list[dict[str, Any]], sparsity: float) -> dict[str, Any]:
    """What the run has kept of a size."""
    if not kept:
        raise UserError(
            f"{run} has kept no trained sizes (--no-keep-sizes, or an older version made it); its student and "
            "assistant are in its folder, every other size needs a new run."
        )
    rows = [row for row in kept if round(row["sparsity"], 6) == round(sparsity, 6)]
    if not rows:
        trained = ", ".join(f"{s:g}" for s in sorted({row["sparsity"] for row in kept}))
        raise UserError(f"--sparsity is {sparsity:g}, which {run} has not trained; it has trained {trained}.")
    return max(reversed(rows), key=lambda row: row["selection_metrics"]["metric"])
