"""The real command, as a person types it."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from napari_semiseg import __version__
from napari_semiseg.cli import app as command_line
from napari_semiseg.errors import InputError

VERBS = ["demo", "run", "train", "predict", "suggest", "export", "evaluate", "inspect", "methods", "serve", "doctor"]


@pytest.mark.flaky(reruns=2)
def test_help_names_every_verb_and_answers_within_a_second_without_torch(command):
    begun = time.perf_counter()
    done = command("--help")
    first = time.perf_counter() - begun
    code = "import sys, napari_semiseg.cli.app; print({'torch', 'napari', 'qtpy'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.returncode == 0
    assert all(f" {verb} " in done.stdout for verb in VERBS)
    assert loaded.stdout.strip() == "set()"
    assert first < 10, "generous, for a machine that does other things; idle it takes a third of a second"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches_by_example(verb, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        command_line.main([verb, "--help"])

    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"napari-semiseg {verb}" in said.split("Usage:")[1].split("\n", 1)[1], "no example of its use"


def test_the_version_is_the_package_s(command):
    assert command("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train"], "Missing argument"),
        (["train", "a.tif", "--out", "r", "--minuts", "3"], "No such option: --minuts"),
        (["brew"], "No such command 'brew'"),
        (["train", "a.tif", "--out", "r", "--set", "lr"], "--set takes key=value"),
    ],
)
def test_wrong_usage_is_one_sentence_on_stderr_and_status_2(args, words, capsys):
    with pytest.raises(SystemExit) as end:
        command_line.main(args)
    said = capsys.readouterr()

    assert end.value.code == 2
    assert said.out == ""
    assert said.err.startswith("napari-semiseg: ")
    assert words in said.err
    assert said.err.count("\n") == 1


def test_a_wrong_value_is_named_before_anything_is_made(command, tmp_path):
    done = command("train", "a.tif", "--out", tmp_path / "run", "--preset", "hasty")

    assert done.returncode == 2
    assert "'preset'" in done.stderr
    assert "hasty" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there_is_named(command, tmp_path):
    done = command("train", tmp_path / "absent.tif", "--out", tmp_path / "run")

    assert done.returncode == 2
    assert "absent.tif" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_defect_is_one_sentence_with_the_traceback_in_a_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(command_line, "app", _raiser(KeyError("gears")))
    with pytest.raises(SystemExit) as end:
        command_line.main([])
    said = capsys.readouterr().err
    [log] = tmp_path.rglob("*.log")

    assert end.value.code == 1
    assert said.count("\n") == 1
    assert str(log) in said
    assert "KeyError: 'gears'" in log.read_text()
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/full/a.tif"), "/full/a.tif: No space left on device: make"),
        (OSError(errno.EACCES, "Permission denied", "/private"), "/private: Permission denied: ask for the right"),
        (OSError(errno.ENOTDIR, "Not a directory", "/a.tif/b"), "/a.tif/b: Not a directory: check the name"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/aaa"), "/aaa: File name too long: choose a shorter name"),
    ],
)
def test_what_the_system_refuses_is_no_defect(monkeypatch, capsys, error, words):
    monkeypatch.setattr(command_line, "app", _raiser(error))
    with pytest.raises(SystemExit) as end:
        command_line.main([])

    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_bad_input_is_told_in_its_own_words(monkeypatch, capsys):
    monkeypatch.setattr(command_line, "app", _raiser(InputError("a.tif is empty: choose another.")))
    with pytest.raises(SystemExit) as end:
        command_line.main([])

    assert end.value.code == 2
    assert capsys.readouterr().err == "napari-semiseg: a.tif is empty: choose another.\n"


def test_output_survives_a_console_that_knows_no_greek(command):
    done = command("train", "--help", PYTHONIOENCODING="ascii", COLUMNS="100")

    assert done.returncode == 0
    assert "Pixel size" in done.stdout


def test_the_script_and_the_module_are_one_command():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    assert project["scripts"] == {"napari-semiseg": "napari_semiseg.cli.app:main"}


def _raiser(error):
    def app(*args, **kwargs):
        raise error

    return app
