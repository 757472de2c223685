import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "minidisc"

# Lowest first. A module imports from lower layers and from its own package, never from its own layer's other members.
LAYERS: list[set[str]] = [
    {"errors", "foreign_text", "label_scale", "memory", "randomness", "recording", "sharing", "slices"},
    {"files", "quantities", "ranks", "values"},
    {"config"},
    {"architectures", "tasks", "subnetworks"},
    {"modeling", "losses", "devices", "latency", "batching", "weights", "tokenization", "results"},
    {"layers", "arguments", "checkpoints"},
    {"checkpointing"},
    {"measure", "importance", "distribution", "low_rank", "rows"},
    {"nested", "footprint"},
    {"extraction", "prediction", "outputs", "layer_dropping", "vocabulary"},
    {"selection", "resumable", "teachers", "teaching", "runs", "probing", "contrast", "tracking"},
    {"disk"},
    {"trainer", "preflight", "confidence", "writing", "scoring", "refusals"},
    {"schedules", "report", "listening", "own_text"},
    {"preparation", "card"},
    {"budgets", "finetuned_card", "timings"},
    {"finishing"},
    {"pipeline"},
    {"evaluation", "finetuning", "comparison", "sizes", "reporting", "hub"},
    {"demo", "exporting"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def _imported(file, root):
    """Yield (line, top-level module; None for the package's own __init__) for each import from minidisc."""
    package = [root.name, *file.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == root.name:
                module = target[1] if len(target) > 1 else None
                yield node.lineno, module if _is_module(root, module) else None


def _is_module(root, name):
    return name is not None and (name in LEVEL or (root / name).is_dir() or (root / f"{name}.py").is_file())


def violations(root):
    """One line for each import that points up or sideways, and for each module that no layer names."""
    found = []
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root)
        own = relative.parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        if own not in LEVEL:
            found.append(f"{relative}: module {own!r} has no layer; give it one in LAYERS")
            continue
        for line, target in _imported(file, root):
            if target == own or (target in LEVEL and LEVEL[target] < LEVEL[own]):
                continue
            where = "the package's own __init__, which stands above all layers" if target is None else repr(target)
            found.append(f"{relative}:{line}: {own!r} imports {where}; a module may import from lower layers only")
    return found


def test_imports_point_down_only():
    assert not violations(ROOT), "\n" + "\n".join(violations(ROOT))


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("files.py", "from minidisc.config import Settings", "'files' imports 'config'"),
        ("files.py", "from minidisc import config", "'files' imports 'config'"),
        ("files.py", "from . import config", "'files' imports 'config'"),
        ("files.py", "def f():\n    import minidisc.trainer", "files.py:2: 'files' imports 'trainer'"),
        ("losses.py", "from minidisc.measure import x", "'losses' imports 'measure'"),
        ("tasks/a.py", "from ..trainer import x", "'tasks' imports 'trainer'"),
        ("trainer.py", "from minidisc import compress", "'trainer' imports the package's own __init__"),
        ("trainer.py", "import minidisc", "'trainer' imports the package's own __init__"),
        ("novel.py", "", "'novel' has no layer"),
        ("trainer.py", "from minidisc.losses import x\nfrom .nested import y\nimport torch", None),
        ("tasks/a.py", "from .b import x\nfrom minidisc.tasks import y\nfrom ..config import z", None),
        ("__init__.py", "from minidisc.cli import x", None),
    ],
)
def test_the_check_itself(tmp_path, file, source, message):
    path = tmp_path / "minidisc" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    found = violations(tmp_path / "minidisc")
    if message is None:
        assert not found
    else:
        assert len(found) == 1
        assert message in found[0]
