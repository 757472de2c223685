"""What the cells of `evidence.py` say: correlations, choices, sizes, costs; all from finished cells of one task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from evidence import ABLATION, CHEAPEST, FIFTH, NO_ASSISTANT, SANDWICH, STOP, Plan, direct, long
from scipy import stats

from minidisc.comparison.table import mean_and_error
from minidisc.selection import largest

COSTS = ("steps", "flops", "cpu_seconds")
LAMBDAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


Seed = tuple[int, int]
"""The number of a teacher, and a seed of training."""


class Evidence:
    """The finished cells of one task: ``contents`` holds a comparison for each teacher."""

    def __init__(self, plan: Plan, name: str, contents: Sequence[dict[str, Any]]) -> None:
        self.plan, self.name, self.contents = plan, name, contents
        self.task = plan.tasks[name]
        self.cells = {
            (c["method"], c["target_sparsity"], (number, c["seed"])): c
            for number, content in enumerate(contents)
            for c in content["cells"]
        }
        self.seeds = sorted({seed for *_, seed in self.cells})
        self.short, self.long = direct(self.task)

    def complete(self, target: float, methods: Iterable[str]) -> list[Seed]:
        """Seeds for which all these methods are finished."""
        return [s for s in self.seeds if all((m, target, s) in self.cells for m in methods)]

    def metric(self, method: str, target: float, seed: Seed) -> float:
        """A student's metric on the validation set."""
        return self.cells[method, target, seed]["metrics"]["metric"]

    def options(self, target: float) -> dict[float, str]:
        """What one sandwich lets one choose between: the method of each candidate, the student's own size last."""
        return {**self.plan.named(), target: NO_ASSISTANT}

    def tradeoff(self, candidate: float, target: float, seed: Seed, lam: float) -> float:
        """t_λ of a candidate in the sandwich, on the selection rows."""
        rows = self.cells["minidisc", target, seed]["candidates"]
        return next(row["metric"] for row in rows if row["sparsity"] == candidate) + lam * candidate

    def tradeoff_alone(self, assistant: float, target: float, seed: Seed, lam: float) -> float:
        """t_λ of an assistant that was distilled alone, on the selection rows."""
        cell = self.cells[self.plan.chains()[assistant], target, seed]
        return cell["assistants"][0]["selection_metrics"]["metric"] + lam * assistant

    def sizes_in_millions(self) -> dict[float, float]:
        """Parameters without embeddings of every size: a target's as counted, an assistant's by its prunable part."""
        teacher = self.contents[-1]["teacher"]["sizes"]
        rest = teacher["without_embeddings"] - teacher["prunable"]
        counted = {target: cell["sizes"]["without_embeddings"] for (_, target, _), cell in self.cells.items()}
        cut = {a: rest + (1 - a) * teacher["prunable"] for a in self.plan.assistants}
        return {size: n / 1e6 for size, n in {**cut, **counted}.items()}

    def cost(self, method: str, target: float, seed: Seed, key: str) -> float | None:
        """What a cell costs, with all that it shares with others, as far as it is known (see `known`)."""
        return self.known(self.cells[method, target, seed]["cost"], seed, key)

    def known(self, cost: dict[str, float], seed: Seed, key: str) -> float | None:
        """One of `COSTS`; None for CPU seconds where a GPU did the work."""
        return None if key == "cpu_seconds" and on_gpu(self.contents[seed[0]]) else cost[key]

    def ratio(self, method: str, other: str, target: float, seed: Seed, key: str) -> float | None:
        """The cost of a method over that of another, if it is known."""
        own, others = (self.cost(m, target, seed, key) for m in (method, other))
        return own / others if own is not None and others is not None else None


def on_gpu(content: dict[str, Any]) -> bool:
    """Whether a comparison's cells were trained on a GPU."""
    return ", cuda" in content["cells"][0]["machine"]


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation; None where all x or all y are equal."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(stats.spearmanr(x, y).statistic)


def finding(evidence: Evidence, target: float) -> dict[str, Any] | None:
    """Correlation, over the candidates, of t_λ with the student's metric; of means, and seed by seed."""
    options = evidence.options(target)
    return _correlations(evidence, target, options, ["minidisc", *options.values()], evidence.tradeoff)


def finding_alone(evidence: Evidence, target: float) -> dict[str, Any] | None:
    """The same over assistants that were each distilled alone, as the paper found it."""
    options = evidence.plan.chains()
    return _correlations(evidence, target, options, options.values(), evidence.tradeoff_alone)


def _correlations(
    evidence: Evidence,
    target: float,
    options: dict[float, str],
    needed: Iterable[str],
    tradeoff: Callable[[float, float, Seed, float], float],
) -> dict[str, Any] | None:
    seeds = evidence.complete(target, needed)
    if not seeds:
        return None
    students = [[evidence.metric(method, target, s) for method in options.values()] for s in seeds]
    found: dict[str, Any] = {"seeds": len(seeds), "students": [mean_and_error(x) for x in np.transpose(students)]}
    for lam in LAMBDAS:
        tradeoffs = [[tradeoff(c, target, s, lam) for c in options] for s in seeds]
        each = [spearman(t, m) for t, m in zip(tradeoffs, students, strict=True)]
        # A seed has none where all its students are equal: each ended as the sandwich had left it.
        known = [rho for rho in each if rho is not None]
        found[f"{lam:g}"] = {
            "of_means": spearman(np.mean(tradeoffs, 0), np.mean(students, 0)),
            "by_seed": mean_and_error(known) if known else None,
            "seeds_of_rho": len(known),
        }
    return found


def gains(evidence: Evidence, target: float) -> dict[float, tuple[float, float]] | None:
    """For each λ: the student of the candidate it chooses, less the mean one, and less the best one."""
    options = evidence.options(target)
    seeds = evidence.complete(target, ["minidisc", *options.values()])
    if not seeds:
        return None
    found = {}
    for lam in LAMBDAS:
        differences = []
        for seed in seeds:
            students = [evidence.metric(method, target, seed) for method in options.values()]
            tradeoffs = [evidence.tradeoff(c, target, seed, lam) for c in options]
            chosen = students[largest(tradeoffs, list(options))]
            differences.append((chosen - np.mean(students), chosen - max(students)))
        over_mean, over_best = np.mean(differences, 0)
        found[lam] = float(over_mean), float(over_best)
    return found


def against_all(evidence: Evidence, target: float, trial: str = "minidisc") -> dict[str, Any] | None:
    """One trial against the search: the students' metrics, and the cost ratios.

    The search's pick is known before all that it tried; the best and the mean are of the seeds that have all of it.
    """
    chains = list(evidence.plan.chains().values())
    whole = evidence.complete(target, chains)
    rows = []
    for seed in evidence.complete(target, [trial, "maxidisc"]):
        tried = [evidence.metric(method, target, seed) for method in chains] if seed in whole else None
        own, picked = (evidence.metric(m, target, seed) for m in (trial, "maxidisc"))
        rows.append(
            {
                "trial": own,
                "maxidisc": picked,
                "best": max(tried) if tried else None,
                "mean": float(np.mean(tried)) if tried else None,
                "less_maxidisc": own - picked,
                "less_best": own - max(tried) if tried else None,
                "pick_over_mean": picked - float(np.mean(tried)) if tried else None,
                "pick_over_best": picked - max(tried) if tried else None,
                **{key: evidence.ratio(trial, "maxidisc", target, seed, key) for key in ("flops", "cpu_seconds")},
            }
        )
    if not rows:
        return None
    seeds = {"seeds": len(rows), "seeds_of_all": sum(row["best"] is not None for row in rows)}
    return {**seeds, **{key: _known([row[key] for row in rows]) for key in rows[0]}}


def _known(values: Sequence[float | None]) -> tuple[float, float | None] | None:
    """Mean and standard error of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return mean_and_error(known) if known else None


def sizes(evidence: Evidence) -> dict[str, Any]:
    """Every size of the sandwich against the same size distilled alone with as many steps."""
    plan, found = evidence.plan, {}
    for size in (*plan.assistants, *plan.targets):
        is_target = size in plan.targets
        at = size if is_target else plan.targets[0]
        methods = (SANDWICH, evidence.short) if is_target else (plan.named()[size], plan.chains()[size])
        stage = "student" if is_target else f"assistant-{100 * size:g}"
        pairs, seconds = [], []
        for seed in evidence.complete(at, methods):
            one, alone = (evidence.cells[m, at, seed] for m in methods)
            pairs.append([(c if is_target else c["assistants"][0])["metrics"]["metric"] for c in (one, alone)])
            seconds.append(evidence.known(alone["stages"][stage], seed, "cpu_seconds"))
        if pairs:
            sandwich, alone_metric = np.transpose(pairs)
            found[f"{size:g}"] = {
                "seeds": len(pairs),
                "sandwich": mean_and_error(sandwich),
                "alone": mean_and_error(alone_metric),
                "difference": mean_and_error(sandwich - alone_metric),
                "alone_cpu_seconds": _known(seconds),
            }
    return found


def summary(evidence: Evidence, target: float) -> dict[str, Any] | None:
    """The main methods side by side: metrics and FLOPs, over the seeds that have minidisc and direct distillation."""
    seeds = evidence.complete(target, ["minidisc", evidence.long])
    if not seeds:
        return None
    teachers = [evidence.contents[number]["teacher"]["metrics"]["metric"] for number, _ in seeds]
    found: dict[str, Any] = {"seeds": len(seeds), "teacher": float(np.mean(teachers))}
    for name, method in (
        ("minidisc", "minidisc"),
        ("cheapest", CHEAPEST),
        ("direct", evidence.long),
        ("ten_stages", long(evidence.task)),
        ("maxidisc", "maxidisc"),
    ):
        own = evidence.complete(target, ["minidisc", evidence.long, method])
        if own:
            metrics = [evidence.metric(method, target, s) for s in own]
            flops = [evidence.cost(method, target, s, "flops") for s in own]
            found[name] = {"seeds": len(own), "metric": mean_and_error(metrics), "flops": mean_and_error(flops)}
    return found


def against_none(evidence: Evidence, target: float) -> dict[str, Any]:
    """Students with and without an assistant: metrics, and what each costs with all that it shares."""
    found = {}
    for method in (
        "minidisc",
        STOP,
        SANDWICH,
        NO_ASSISTANT,
        FIFTH,
        evidence.short,
        evidence.long,
        long(evidence.task),
        "direct:flops_of=minidisc",
    ):
        seeds = evidence.complete(target, [method, "minidisc", evidence.long])
        if seeds:
            less = [evidence.metric(method, target, s) - evidence.metric(evidence.long, target, s) for s in seeds]
            found[method] = {
                "seeds": len(seeds),
                "metric": mean_and_error([evidence.metric(method, target, s) for s in seeds]),
                "less_direct": mean_and_error(less),
                **{key: _known([evidence.cost(method, target, s, key) for s in seeds]) for key in COSTS},
            }
    return found


def ablation(evidence: Evidence, target: float) -> dict[str, tuple[float, float]]:
    """For every variant, means over seeds: its metric less that of what it varies, and the ratio of their FLOPs."""
    found = {}
    for base, variants in ABLATION.items():
        for variant in variants:
            seeds = evidence.complete(target, [base, variant])
            if seeds:
                metric = [evidence.metric(variant, target, s) - evidence.metric(base, target, s) for s in seeds]
                flops = [evidence.ratio(variant, base, target, s, "flops") for s in seeds]
                found[variant] = float(np.mean(metric)), float(np.mean(flops))
    return found
