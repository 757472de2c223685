"""Training text that a language model writes itself, for when there is no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from minidisc.errors import UserError
from minidisc.files import new_file, new_folder, read_json, write_json
from minidisc.tasks.documents import CUT
from minidisc.values import changes

BATCH = 64
"""Documents written at a time, which are lost when the process is killed."""


def write_documents(
    folder: Path,
    load: Callable[[], tuple[Any, Any]],
    wanted: dict[str, int],
    length: int,
    seed: int,
    note: Callable[[str], None],
) -> dict[str, Path]:
    """Let a language model write documents, each from its first token on, drawn from the model's own probabilities.

    Args:
        folder: the texts go there; those that are there already are not written again.
        load: loads the model, on the device that it is to write on, and its tokenizer.
        wanted: how many documents there shall be, by name.
        length: tokens of a document, at most.
        seed: of the drawing; every document has its own.
        note: is told how far it has come.

    Returns:
        For each name a JSONL file of rows with ``text``, and `CUT` true where the model had not come to an end.

    Raises:
        UserError: the tokenizer has no token that begins a text.
    """
    files = {name: folder / f"{name}.jsonl" for name in wanted}
    if all(file.is_file() for file in files.values()):
        return files
    model, tokenizer = load()
    # What the settings below leave open, transformers takes from these, which are for users: temperature, top_p, …
    model.generation_config = GenerationConfig()
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise UserError("the teacher's tokenizer has no token that begins a text; give --train-file instead.")
    for number, (name, count) in enumerate(wanted.items()):
        if files[name].is_file():
            continue
        parts = folder / f".{name}"
        parts.mkdir(parents=True, exist_ok=True)
        for done in range(0, count, BATCH):
            part = parts / f"{done}.json"
            if not part.is_file():
                rows = min(BATCH, count - done)
                write_json(part, _texts(model, tokenizer, start, rows, length, (seed, number, done)))
                note(f"the teacher writes its own text: {done + rows}/{count} documents of {name}")
        written = [row for done in range(0, count, BATCH) for row in read_json(parts / f"{done}.json")]
        with new_file(files[name]) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
        shutil.rmtree(parts)
    return files


def open_texts(folder: Path, made_by: dict[str, Any]) -> None:
    """Make the folder of the texts, or check that those in it were made in this way.

    Raises:
        UserError: it holds others, which may have taken hours, or something else.
    """
    file = folder / "made_by.json"
    if not file.is_file():
        if folder.exists():
            raise UserError(f"{folder} is in the way of the teacher's own text; give another --output-dir.")
        with new_folder(folder) as temporary:
            write_json(temporary / file.name, made_by)
        return
    if changed := changes(read_json(file), made_by):
        raise UserError(
            f"{folder} holds text that the teacher wrote otherwise ({'; '.join(changed)}); repeat its settings, "
            "give another --output-dir, or delete it."
        )


@torch.no_grad()
def _texts(
    model: Any, tokenizer: Any, start: int, rows: int, length: int, seed: tuple[int, ...]
) -> list[dict[str, Any]]:
    ends = {token for token in (tokenizer.eos_token_id, tokenizer.bos_token_id) if token is not None}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        ids = model.generate(
            torch.full((rows, 1), start, device=model.device),
            attention_mask=torch.ones(rows, 1, dtype=torch.long, device=model.device),
            generation_config=GenerationConfig(
                max_new_tokens=length - 1,
                do_sample=True,
                top_k=0,
                eos_token_id=sorted(ends) or None,
                pad_token_id=min(ends, default=start),
            ),
        )
    texts = []
    for row in ids[:, 1:].tolist():
        stop = next((place for place, token in enumerate(row) if token in ends), len(row))
        text = tokenizer.decode(row[:stop], skip_special_tokens=True).strip()
        texts.append({"text": text} | ({CUT: True} if stop == len(row) else {}))
    return [row for row in texts if row["text"]]
