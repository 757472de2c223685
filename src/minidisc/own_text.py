"""Files of text that the teacher has written, in place of those that a run is not given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidisc.config import CompressSettings, documents_to_write
from minidisc.devices import resolve_device
from minidisc.runs import TEXT, check_folder
from minidisc.tasks import CAUSAL_LM
from minidisc.teachers import check_kind, fingerprint_of, load_model
from minidisc.writing import open_texts, write_documents


def with_own_text(settings: CompressSettings, config: Any, note: Callable[[str], None]) -> CompressSettings:
    """The settings of ``train_text`` with the files that the teacher has written, once it has.

    Args:
        settings: of the run, in whose folder the files are.
        config: the teacher's configuration.
        note: is told how far it has come.

    Raises:
        UserError: the teacher is no language model, or the folder holds text of other settings.
    """
    check_kind(config, CAUSAL_LM)
    count = documents_to_write(settings.train_text or "")
    wanted = {"train": count}
    if not settings.validation_file:
        wanted["validation"] = max(64, count // 10)
    check_folder(Path(settings.output_dir))
    folder = Path(settings.output_dir) / TEXT
    open_texts(
        folder,
        {
            "teacher": fingerprint_of(settings.teacher),
            "documents": wanted,
            "length": settings.max_length,
            "seed": settings.seed,
            # Which was not told at first: all of a text would seem to have come to its end.
            "says what was cut": True,
        },
    )

    def load() -> tuple[Any, Any]:
        loaded = load_model(settings.teacher, settings.trust_remote_code, kind=CAUSAL_LM)
        return loaded.model.to(resolve_device(settings.device)), loaded.tokenizer

    files = write_documents(folder, load, wanted, settings.max_length, settings.seed, note)
    return dataclasses.replace(
        settings,
        task=CAUSAL_LM,
        train_text=None,
        train_file=str(files["train"]),
        validation_file=settings.validation_file or str(files["validation"]),
    )
