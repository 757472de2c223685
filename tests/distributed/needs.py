"""What some of the tests here need and not every machine has."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

# DeepSpeed compiles a part of itself when processes on CPUs first meet; pip puts ninja beside python.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
HAVE_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None and all(
    shutil.which(tool, path=PATH) for tool in ("c++", "ninja")
)
needs_deepspeed = pytest.mark.skipif(
    not HAVE_DEEPSPEED, reason="DeepSpeed, or a compiler for it, is not installed (docs/scaling.md)"
)
