"""A command in a process of its own, with its peak memory and processor time as the system tells them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

_EVERY = 0.05  # seconds between two looks at the process


def peak_of(command: list[str]) -> int:
    """Run a command to its end; returns the most bytes of memory that it has had.

    The peak that the system keeps is looked at again and again, since `minidisc.measure` sets it back between stages.

    Raises:
        SystemExit: if the command fails.
    """
    peak = 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, _peak(process.pid))
        time.sleep(_EVERY)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}")
    return peak


def plan_and_compress(settings: dict[str, Any], work: Path) -> dict[str, Any]:
    """`minidisc.plan`, then `minidisc.compress`, each in a fresh process, with the same settings.

    Returns:
        What was estimated and what was measured.
    """
    work.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    for action in ("plan", "compress"):
        result = work / f"{action}.json"
        peak = peak_of([sys.executable, __file__, action, json.dumps(settings), str(result)])
        figures[action] = {"peak": peak, **json.loads(result.read_text())}
    return figures


def compared(figures: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Estimated and measured memory, processor seconds and wall seconds."""
    estimate, run = figures["plan"]["estimate"], figures["compress"]
    return {
        "memory, GiB": (estimate["memory"] / 2**30, run["peak"] / 2**30),
        "CPU seconds": (estimate["cpu_seconds"], run["cpu_seconds"]),
        "seconds": (estimate["seconds"], run["seconds"]),
        "FLOPs, 1e12": (estimate["flops"] / 1e12, run["flops"] / 1e12),
    }


def off(estimated: float, measured: float) -> str:
    """By how much an estimate is off, in percent of what was measured."""
    return f"{100 * (estimated / measured - 1):+.0f} %"


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    except OSError:
        return 0


def _child(action: str, settings: dict[str, Any], result: Path) -> None:
    from minidisc.pipeline import compress, plan

    # Imports are no part of what is estimated.
    seconds, cpu_seconds = time.perf_counter(), time.process_time()
    figures: dict[str, Any]
    if action == "plan":
        figures = {"estimate": asdict(plan(**settings).estimate)}
    else:
        run = compress(**settings)
        stages = run.results["cost"]["stages"]
        figures = {"flops": run.cost.flops, "reported_peak": run.cost.peak_memory, "stages": stages}
    figures["seconds"] = time.perf_counter() - seconds
    figures["cpu_seconds"] = time.process_time() - cpu_seconds
    result.write_text(json.dumps(figures))


if __name__ == "__main__":
    _child(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))
