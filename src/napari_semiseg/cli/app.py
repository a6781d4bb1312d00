"""The command line: its verbs, and what becomes of an error."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from napari_semiseg import __version__
from napari_semiseg.cli.benchmark import benchmark
from napari_semiseg.cli.cite import cite
from napari_semiseg.cli.defects import log_defect
from napari_semiseg.cli.demo import demo
from napari_semiseg.cli.doctor import doctor
from napari_semiseg.cli.evaluate import evaluate
from napari_semiseg.cli.export import export
from napari_semiseg.cli.import_labels import import_
from napari_semiseg.cli.inspect import inspect
from napari_semiseg.cli.job import DEFECT, STOPPED, WRONG_INPUT
from napari_semiseg.cli.methods import methods
from napari_semiseg.cli.predict import predict
from napari_semiseg.cli.run import run
from napari_semiseg.cli.serve import serve
from napari_semiseg.cli.suggest import suggest
from napari_semiseg.cli.train import train
from napari_semiseg.errors import InputError

NAME = "napari-semiseg"

app = typer.Typer(name=NAME, rich_markup_mode="markdown", pretty_exceptions_enable=False)
for verb in (demo, run, train, predict, suggest, export, evaluate, inspect, benchmark, cite, methods, serve, doctor):
    app.command()(verb)
app.command("import")(import_)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _about(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Segment nuclei on whole slides from few labels, or none.

    Try `napari-semiseg demo` first; `napari-semiseg doctor` says what is missing.

    Exit status: 0 done, 1 a defect of this program, 2 wrong usage or bad input, 3 stopped on request.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status.

    Parameters
    ----------
    args : sequence of str, optional
        Instead of the process's own arguments.
    """
    for stream in (sys.stdout, sys.stderr):  # a console that cannot show "µ" must not end a training
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.exit(_status(args))


def _status(args: Sequence[str] | None) -> int:
    try:
        return app(args, prog_name=NAME, standalone_mode=False) or 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else NAME
        return _complain(f"{error.format_message().rstrip('.')}: see {where} --help.", error.exit_code)
    except InputError as error:
        return _complain(str(error), WRONG_INPUT)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STOPPED
    except OSError as error:
        if error.errno in _NOT_OURS:
            where = f"{error.filename}: " if error.filename else ""
            advice = f"{_NOT_OURS[error.errno]}, or choose another place"
            return _complain(f"{where}{error.strerror}: {advice}.", WRONG_INPUT)
        return _complain(log_defect(error), DEFECT)
    except Exception as error:  # whatever it is, the user gets one sentence and we get the traceback
        return _complain(log_defect(error), DEFECT)


_NOT_OURS = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "ask for the right to it",
    errno.EPERM: "ask for the right to it",
    errno.ENOTDIR: "check the name",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What to do about errors of the system that are no defect of the program."""


def _complain(sentence: str, status: int) -> int:
    print(f"{NAME}: {sentence}", file=sys.stderr)  # noqa: T201
    return status
