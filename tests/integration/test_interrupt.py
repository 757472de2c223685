"""Ctrl-C, as a terminal sends it: one line that says how to go on, and a run that goes on."""

import shlex
import signal
import subprocess
import sys

import pytest

import minidisc
from minidisc.cli.main import main
from tests.integration import tiny


def _interrupted(arguments, at):
    """Send SIGINT to a command once it has printed a line with ``at``; what it leaves on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "minidisc", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell hands down that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert any(at in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130
    return error


def test_the_line_on_stderr_is_the_command_that_goes_on(workplace, tmp_path):
    settings = tiny.settings(workplace, tmp_path / "run")
    flags = {**settings, "grid": "0.25,0.5"}
    arguments = [part for name, value in flags.items() for part in ("--" + name.replace("_", "-"), str(value))]
    error = _interrupted(["compress", *arguments, "--keep-checkpoints"], "sandwich-1 step 8:")
    assert "Traceback" not in error
    (line,) = error.strip().splitlines()
    assert not (tmp_path / "run" / "results.json").exists()
    start, _, command = line.partition("go on with: ")
    assert start == "minidisc: interrupted; "
    name, *again = shlex.split(command)
    assert name == "minidisc"

    main(again)
    minidisc.compress(**{**settings, "output_dir": str(tmp_path / "whole"), "keep_checkpoints": True})
    weights = tiny.weights(tmp_path / "whole")
    assert weights.keys() >= {"student", "checkpoints/sandwich-1/checkpoint-16"}
    assert tiny.weights(tmp_path / "run") == weights


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["finetune", "--output-dir", "a b", "--resume"], "go on with: minidisc finetune --output-dir 'a b' --resume"),
        (["compare"], "go on with: minidisc compare --resume"),
        (["demo"], "go on with: minidisc demo"),
        (["evaluate"], "interrupted"),
    ],
)
def test_what_each_command_says(monkeypatch, capsys, arguments, line):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("minidisc.cli.main.app", stop)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 130
    assert capsys.readouterr().err.strip().endswith(line)


def test_of_several_processes_the_launcher_has_to_be_started_again(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    test_what_each_command_says(
        monkeypatch, capsys, ["compress"], "minidisc: interrupted; start it again as before, with --resume"
    )
