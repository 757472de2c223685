"""The exhaustive search: a full distillation through every candidate; the best student wins.

METHOD: MaxiDisc, arXiv 2205.14570, section 3: as many trials as there are candidates.
"""

from __future__ import annotations

from minidisc.schedules.chain import distil_through
from minidisc.schedules.job import Job, Outcome


def maxidisc(job: Job) -> Outcome:
    """Try every candidate as the assistant; students are compared on the selection rows."""
    best, trials = Outcome(), []
    costs, history, kept = {}, {}, []
    for spec in job.candidates[:-1]:
        trial = distil_through(job, [spec])
        costs.update(trial.costs)
        history.update(trial.history)
        kept += trial.kept
        trials.append(
            {
                "assistant": spec.sparsity,
                "assistant_metrics": trial.assistants[0].candidate.metrics,
                "student_metrics": trial.selection_metrics,
            }
        )
        if best.student is None or trial.selection_metrics["metric"] > best.selection_metrics["metric"]:
            best = trial
    best.costs, best.history, best.kept, best.trials = costs, history, kept, trials
    return best
