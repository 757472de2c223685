"""Python code in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import minidisc

SOURCE = Path(minidisc.__file__).parents[1]


def run(script, tmp_path, *arguments):
    """Run Python code in a fresh process with empty caches; what it prints last is JSON."""
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "HF_HOME": str(tmp_path / "home"),
            "HF_MODULES_CACHE": str(tmp_path / "modules"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(SOURCE),
        },
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])
