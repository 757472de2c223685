"""What a trained run leaves: its models, measured on the validation rows and timed, and every figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minidisc import budgets, ranks
from minidisc.card import write_card
from minidisc.confidence import coin_toss
from minidisc.config import CompressSettings
from minidisc.extraction import round_weights, save_small
from minidisc.files import write_json
from minidisc.measure import highest_memory, sizes_of
from minidisc.preparation import Preparation
from minidisc.refusals import chance_warning
from minidisc.report import write_report
from minidisc.report.formats import assistant_name
from minidisc.results import Cost, ModelResult, plain
from minidisc.schedules import Job, Outcome
from minidisc.selection import Candidate, lambda_sweeps
from minidisc.tasks import label_array
from minidisc.timings import timings


def finish(
    prepared: Preparation,
    job: Job,
    outcome: Outcome,
    folder: Path,
    budget: dict[str, Any] | None,
    used: dict[str, str],
) -> None:
    """Write all that a finished run's folder holds; ``results.json`` last, by which it is known to be finished.

    Args:
        prepared: of the run.
        job: with the settings that it was trained with.
        outcome: what was trained.
        folder: of the run.
        budget: what the target sparsity was solved for, if it was; gets what was reached.
        used: versions of the libraries.
    """
    rows = _candidates(outcome)
    write_json(folder / "candidates.json", rows)
    if _was_free(job.settings):
        for line in map(coin_toss, outcome.candidates):
            if line is not None:
                prepared.warn(line, of="student")
    prepared.listener.note("evaluating teacher, assistant and student on the validation rows")
    assistants, student = _assistants(prepared, outcome, folder), _student(prepared, outcome, folder)
    teacher = prepared.teacher_result()
    prepared.listener.note("timing them, and the candidates, on one thread")
    latency = _timings(prepared, outcome)
    if budget is not None:
        budget["reached"] = budgets.reached(prepared, budget, plain(teacher), plain(student), outcome.student)
        if not budget["reached"]["kept"]:
            line = f"the student does not keep the budget ({budget['asked']}): {budget['reached']['text']}."
            prepared.warn(line, of="student")
    cost = {**_cost(prepared, outcome), "all_trials_flops": prepared.flops_of_all_trials(job)}
    results: dict[str, Any] = {
        "task": {"name": prepared.task.name, "kind": prepared.task.kind, "metrics": list(prepared.task.metrics)},
        "rows": prepared.rows.counts(),
        "vocabulary": prepared.vocabulary,
        "embeddings": prepared.low_rank,
        "budget": budget,
        "teacher": plain(teacher),
        "assistants": [plain(a) for a in assistants],
        "student": plain(student),
        "candidates": rows,
        "lambda_sweep": [[part._asdict() for part in sweep] for sweep in lambda_sweeps(rows)],
        "latency": latency,
        "contrast": prepared.contrast(outcome.student),
        "trials": outcome.trials,
        "kept": outcome.kept,
        "history": outcome.history,
        "cost": cost,
        "machine": prepared.machine + f", {ranks.world_size()} processes" * (ranks.world_size() > 1),
        "settings": {**dataclasses.asdict(job.settings), "loss": job.settings.effective_loss},
        "fingerprints": prepared.fingerprints,
        "versions": used,
        "warnings": prepared.warnings,
        # Those that are of one model alone, by its folder's name; they are above too.
        "warnings_of": prepared.warnings_of,
    }
    for model in (*results["assistants"], results["student"]):
        write_card(results, model)
    write_report(folder / "report.html", results)
    write_json(folder / "results.json", results)


def _was_free(settings: CompressSettings) -> bool:
    """Whether the assistant was chosen among the candidates."""
    return settings.stages > 1 and not settings.assistants and settings.no_gap != "assume"


def _candidates(outcome: Outcome) -> list[dict[str, Any]]:
    """The rows of ``candidates.json``."""
    chosen = [assistant.candidate for assistant in outcome.assistants]
    return [
        _row(stage, candidate, any(candidate is c for c in chosen))
        for stage, table in enumerate(outcome.candidates, start=1)
        for candidate in table
    ]


def _row(stage: int, candidate: Candidate, chosen: bool) -> dict[str, Any]:
    assert candidate.confidence is not None
    return {
        "stage": stage,
        **asdict(candidate.spec),
        "sizes": asdict(candidate.sizes),
        "metrics": candidate.metrics,
        "metric": candidate.metric,
        **asdict(candidate.confidence),
        "tradeoff": candidate.tradeoff,
        "step": candidate.step,
        "chosen": chosen,
    }


def _assistants(prepared: Preparation, outcome: Outcome, folder: Path) -> Sequence[ModelResult]:
    """Save and evaluate those through which the student was distilled."""
    found = []
    for number, assistant in enumerate(outcome.assistants, start=1):
        path = folder / ("assistant" if number == 1 else f"assistant-{number}")
        _save_model(prepared, assistant.model, path)
        candidate = assistant.candidate
        metrics = prepared.evaluate(assistant.model, "validation")
        found.append(ModelResult(path, candidate.spec, candidate.sizes, metrics, candidate.metrics))
    return found


def _student(prepared: Preparation, outcome: Outcome, folder: Path) -> ModelResult:
    """Save and evaluate the student; warns of one that is no better than chance."""
    assert outcome.spec is not None
    path = folder / "student"
    _save_model(prepared, outcome.student, path)
    sizes = sizes_of(outcome.student, prepared.architecture, prepared.shape.prunable(outcome.spec))
    metrics = prepared.evaluate(outcome.student, "validation")
    if line := chance_warning(prepared.task, metrics["metric"], label_array(prepared.rows["validation"])):
        prepared.warn(line, of="student")
    return ModelResult(path, outcome.spec, sizes, metrics, outcome.selection_metrics)


def _save_model(prepared: Preparation, model: Any, path: Path) -> None:
    """Save a model, and leave it with the weights that were saved."""
    dtype = prepared.settings.save_dtype
    if not round_weights(model.cpu(), dtype):
        prepared.warn(f"weights of {path.name} are beyond the range of {dtype}: it is saved in fp32.", of=path.name)
        dtype = "fp32"
    save_small(model, prepared.loaded.tokenizer, path, dtype)


def _timings(prepared: Preparation, outcome: Outcome) -> dict[str, Any] | None:
    """How fast what was saved is, and every size of the first stage."""
    made = {
        assistant_name(number, len(outcome.assistants)): (assistant.candidate.spec, assistant.model)
        for number, assistant in enumerate(outcome.assistants, start=1)
    }
    assert outcome.spec is not None
    made["student"] = outcome.spec, outcome.student
    sizes = dict.fromkeys(candidate.spec for table in outcome.candidates[:1] for candidate in table)
    return timings(prepared, made, list(sizes))


def _cost(prepared: Preparation, outcome: Outcome) -> dict[str, Any]:
    """What the stages took, and all of them."""
    stages = {"importance": prepared.cost, **outcome.costs}
    total = sum(stages.values(), Cost())
    # More than a stage's own peak, where something between the stages needed more.
    total.peak_memory = max(total.peak_memory, highest_memory())
    return {"total": asdict(total), "stages": {name: asdict(cost) for name, cost in stages.items()}}
