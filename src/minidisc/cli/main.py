"""`minidisc`: the commands. Heavy imports happen inside the command that needs them."""

from __future__ import annotations

import errno
import io
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from minidisc import ranks
from minidisc.cli.options import command_from
from minidisc.cli.output import Output, quiet_libraries
from minidisc.config import (
    TARGETS,
    CompareSettings,
    CompressSettings,
    EvaluateSettings,
    ExportSettings,
    FinetuneSettings,
)
from minidisc.errors import CheckFailed, UserError
from minidisc.files import FULL
from minidisc.foreign_text import printable
from minidisc.runs import versions

# typer brings its own click and does not export this base class of typer.BadParameter and of unknown options.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

# What methods say, or what concerns single runs.
_NOT_COMPARED = (
    *("schedule", "assistants", "student", "save_dtype", "keep_sizes", "examples"),
    *("latency_batch_size", "latency_length"),
)
# What commands that train nothing would make nothing of.
_OF_TRAINING_ROWS = ("train_file", "max_train_rows", "stream", "seed")
_INTERRUPTED = 130
# What the system says of a path that was given.
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)
_RESUMABLE = ("finetune", "compress", "compare")

_QUIET = "print the result alone, without progress"
_JSON = "print the result as one JSON object on stdout; progress goes to stderr"
# Options of every command that prints a result, in the two forms that commands are made from.
_SHOWN: dict[str, Any] = {"quiet": (bool, False, _QUIET), "as_json": (bool, False, _JSON)}
_Quiet = Annotated[bool, typer.Option("--quiet", help=_QUIET)]
_Json = Annotated[bool, typer.Option("--json", help=_JSON)]

app = typer.Typer(
    name="minidisc",
    help="Compress a fine-tuned Hugging Face transformer in one run, through the best teacher assistant.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_versions(asked: bool) -> None:
    if asked:
        for package, version in sorted(versions().items(), key=lambda item: item[0] != "minidisc"):
            typer.echo(f"{package} {version}")
        raise typer.Exit


_VERSION = typer.Option("--version", callback=_print_versions, is_eager=True, help="print versions, and end")


@app.callback()
def _minidisc(version: Annotated[bool, _VERSION] = False) -> None:
    pass


def _compress(settings: CompressSettings, resume: bool, dry_run: bool, **shown: bool) -> None:
    """Compress a fine-tuned model: find the assistant in one trial, distil the student through it."""
    with _output(**shown) as output:
        from minidisc.pipeline import compress, plan

        if dry_run:
            return output.plan(plan(settings=settings, listener=output))
        output.result(compress(settings=settings, resume=resume, listener=output))


def _finetune(settings: FinetuneSettings, resume: bool, **shown: bool) -> None:
    """Fine-tune a pre-trained model on labelled rows: the teacher."""
    with _output(**shown) as output:
        from minidisc.finetuning import finetune

        output.finetuned(finetune(settings, output.stage("teacher"), resume, output.note))


def _evaluate(settings: EvaluateSettings, **shown: bool) -> None:
    """Evaluate a fine-tuned or compressed model on validation rows."""
    with _output(**shown) as output:
        from minidisc.evaluation import evaluate

        output.evaluated(evaluate(settings), settings.model)


def _export(settings: ExportSettings, **shown: bool) -> None:
    """Export a model to ONNX, with its parity, metric, latency and size beside PyTorch's."""
    with _output(**shown) as output:
        from minidisc.exporting import export

        output.exported(export(settings, output.note), settings.output_dir)


def _compare(settings: CompareSettings, resume: bool, **shown: bool) -> None:
    """Compare methods of compression on one teacher: a table over targets and seeds."""
    with _output(**shown) as output:
        from minidisc.comparison import compare

        comparison = compare(settings=settings, resume=resume, listener=output)
        output.comparison(comparison)
    if comparison.failures:
        sys.exit(1)


app.command("finetune")(
    command_from(
        FinetuneSettings,
        _finetune,
        resume=(bool, False, "go on with a training for --output-dir that was cut short, if it is not finished"),
        **_SHOWN,
    )
)
app.command("compress")(
    command_from(
        CompressSettings,
        _compress,
        resume=(bool, False, "go on with the run in --output-dir where it was cut short"),
        dry_run=(bool, False, "say what the run would train and take; train nothing, write nothing"),
        **_SHOWN,
    )
)
app.command("compare")(
    command_from(
        CompareSettings,
        _compare,
        (*TARGETS, *_NOT_COMPARED),
        {"target_sparsity": "target_sparsities"},
        resume=(bool, False, "go on with the comparison in --output-dir; methods and seeds may be added"),
        **_SHOWN,
    )
)
app.command("evaluate")(command_from(EvaluateSettings, _evaluate, _OF_TRAINING_ROWS, **_SHOWN))
app.command("export")(command_from(ExportSettings, _export, _OF_TRAINING_ROWS, **_SHOWN))


@app.command("gather")
def _gather(
    folders: Annotated[list[str], typer.Argument(metavar="FOLDER [FOLDER …]", help="--output-dir of comparisons")],
    output_dir: Annotated[str, typer.Option(help="where the table is put")],
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Put comparisons that ran apart, such as one for each seed, into one table."""
    with _output(quiet, as_json) as output:
        from minidisc.comparison import gather

        output.comparison(gather(folders, output_dir))


@app.command("extract")
def _extract(
    run: Annotated[str, typer.Argument(metavar="RUN", help="folder of a finished run of 'minidisc compress'")],
    sparsity: Annotated[float, typer.Option(help="one that the run has trained, such as 0.7")],
    output_dir: Annotated[str, typer.Option(help="where the model is put")],
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Take any other size that a run has trained out of it, without training."""
    with _output(quiet, as_json) as output:
        from minidisc.sizes import extract_size

        output.extracted(extract_size(Path(run), sparsity, Path(output_dir)))


@app.command("report")
def _report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN [RUN …]", help="folders of finished runs")],
    output: Annotated[str | None, typer.Option(help="the HTML file (for one run: RUN/report.html)")] = None,
    no_examples: Annotated[bool, typer.Option("--no-examples", help="show no rows of text")] = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Write a finished run's report anew from its files, or one page that compares several runs."""
    with _output(quiet, as_json) as out:
        from minidisc.reporting import report

        out.reported(report([Path(run) for run in runs], Path(output) if output else None, not no_examples))


@app.command("push")
def _push(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="a model that minidisc has saved, or an export")],
    repo_id: Annotated[str, typer.Argument(metavar="NAME/MODEL", help="its name on the Hugging Face Hub")],
    private: Annotated[bool, typer.Option("--private", help="make the repository private, if it is made")] = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Upload a saved model with its card to the Hugging Face Hub; log in with 'hf auth login' before."""
    with _output(quiet, as_json) as output:
        from minidisc.hub import push

        output.pushed(push(Path(folder), repo_id, private))


@app.command("demo")
def _demo(
    output_dir: Annotated[str, typer.Option(help="folder for the demo's data, teacher and run")] = "runs/demo",
) -> None:
    """The main job on real reviews and a real backbone: teacher, assistant, student, prediction."""
    with _output() as output:
        from minidisc.demo.run import demo

        demo(Path(output_dir), output)


def _output(quiet: bool = False, as_json: bool = False) -> Output:
    quiet_libraries()
    return Output(quiet, as_json)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exit code 0 done, 2 bad input, 130 interrupted, 1 anything else."""
    arguments = arguments or sys.argv[1:] or ["--help"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where it is not UTF-8, a λ must not end what has run for hours.
        sys.stdout.reconfigure(errors="replace")
    try:
        _check_launcher(arguments)
        # typer turns Ctrl-C into this exit code, which it returns; older ones into Abort.
        if app(arguments, standalone_mode=False) == _INTERRUPTED:
            raise KeyboardInterrupt
    except UserError as error:
        _fail(str(error))
    except _USAGE_ERROR as error:
        context = error.ctx.command_path if error.ctx else "minidisc"
        _fail(f"{error.format_message().rstrip('.')}; see '{context} --help'.")
    except (FloatingPointError, CheckFailed) as error:
        _fail(str(error), code=1)
    except OSError as error:
        if error.errno in FULL:
            where = "" if error.filename is None else f"{error.filename}: "
            _fail(f"{where}{(error.strerror or '').lower()}; make room on the disk{_how_to_go_on(arguments)}")
        if error.errno not in _REFUSED or error.filename is None:
            raise
        _fail(f"{error.filename}: {(error.strerror or '').lower()}; look at the path, its permissions and its disk.")
    except (KeyboardInterrupt, typer.Abort):
        _fail(f"interrupted{_how_to_go_on(arguments)}", code=_INTERRUPTED)


def _how_to_go_on(arguments: list[str]) -> str:
    """The command that takes up again what an interrupted one has done, where there is one."""
    if arguments[0] not in (*_RESUMABLE, "demo"):
        return ""
    if ranks.world_size() > 1:
        # What a launcher was told is not known here.
        return "; start it again as before, with --resume"
    flag = [] if arguments[0] == "demo" or "--resume" in arguments else ["--resume"]
    return f"; go on with: {shlex.join(['minidisc', *arguments, *flag])}"


def _check_launcher(arguments: list[str]) -> None:
    if ranks.world_size() > 1 and (arguments[0] != "compress" or "--dry-run" in arguments):
        raise UserError("only 'minidisc compress' runs on several processes; start other commands without a launcher.")


def _fail(message: str, code: int = 2) -> NoReturn:
    if ranks.rank() == 0:
        print("minidisc: " + printable(" ".join(message.split())), file=sys.stderr)
    sys.exit(code)
