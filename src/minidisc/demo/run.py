"""The main job on real text, from a pre-trained backbone to a student's prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minidisc.config import CompressSettings, FinetuneSettings
from minidisc.demo.assets import backbone_dir, write_splits
from minidisc.finetuning import finetune
from minidisc.pipeline import compress

TRAIN_ROWS = 2500
SENTENCE = "A warm, funny and beautifully acted film that never overstays its welcome."


def demo(folder: Path, output: Any) -> None:
    """Fine-tune a teacher, compress it to 90 % sparsity, print the table, the summary and a prediction.

    Args:
        folder: where data, teacher and run go; what is there already is not made again.
        output: the command line's printer.
    """
    output.note("demo: all-MiniLM-L6-v2 on Rotten Tomatoes reviews, no movie in two splits")
    files = write_splits(folder / "data", train_rows=TRAIN_ROWS)
    rows: dict[str, Any] = {
        "train_file": str(files["train"]),
        "validation_file": str(files["test"]),
        "max_length": 64,
    }
    teacher = folder / "teacher"
    if not (teacher / "config.json").is_file():
        finetune(
            FinetuneSettings(
                model=str(backbone_dir()),
                output_dir=str(teacher),
                **{**rows, "validation_file": str(files["validation"])},
                epochs=2,
                learning_rate=1e-4,
            ),
            output.stage("teacher"),
            resume=True,
        )
    settings = CompressSettings(teacher=str(teacher), output_dir=str(folder / "run"), epochs=3, **rows)
    result = compress(settings=settings, resume=True, listener=output)
    output.result(result)
    label, score = predict_sentence(result.student.path, SENTENCE)
    output.note(f"the student says: {label} ({score:.2f}) of {SENTENCE!r}")


def predict_sentence(student: Path, sentence: str) -> tuple[str, float]:
    """Label and probability that a saved student gives a sentence, through transformers' own pipeline."""
    from transformers import pipeline

    # The classes are registered (minidisc is imported), so no code of the folder has to run.
    answer = pipeline("text-classification", model=str(student), device="cpu")(sentence)[0]
    return answer["label"], answer["score"]
