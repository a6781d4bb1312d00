from __future__ import annotations

import shutil
import sys
from collections import namedtuple

import pytest

from napari_semiseg.engine import doctor
from napari_semiseg.engine.doctor import examine


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return {finding.topic: finding for finding in examine(tmp_path_factory.mktemp("results"))}


def test_this_environment_is_in_order(findings):
    broken = [finding for finding in findings.values() if finding.state == "bad"]

    assert broken == []
    assert {"Python", "napari", "Qt", "torch", "device cpu", "slides", "disk"} <= findings.keys()


def test_the_processor_has_made_a_step(findings):
    assert "test step in" in findings["device cpu"].found


def test_an_absent_package_comes_with_the_command_that_installs_it():
    finding = doctor._package("napari-of-the-moon", "napari-of-the-moon>=2")

    assert finding.state == "bad"
    assert finding.mend == f'{sys.executable} -m pip install --upgrade "napari-of-the-moon>=2"'


def test_an_old_package_is_to_be_upgraded(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: "0.4.19")

    assert doctor._package("napari", "napari>=0.9").state == "bad"
    assert doctor._package("napari", "napari>=0.4").state == "good"


def test_without_a_binding_there_are_no_windows_and_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: None)
    [finding] = doctor._qt()

    assert finding.state == "bad"
    assert finding.mend.endswith('pip install --upgrade "napari-semiseg[all]"')


@pytest.mark.parametrize(("python", "states"), [((3, 11, 7), ["bad"]), ((3, 12, 0), [])])
def test_a_release_that_crashes_napari_is_named_where_it_does(monkeypatch, python, states):
    monkeypatch.setattr(doctor, "_installed", lambda name: "6.12.0" if name == "PySide6" else None)
    monkeypatch.setattr(doctor.sys, "version_info", python)
    findings = [finding for finding in doctor._qt() if "crashes" in finding.found]

    assert [finding.state for finding in findings] == states
    assert all(finding.mend.endswith('"PySide6!=6.12.0"') for finding in findings)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process was ended by signal 11"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    ],
)
def test_the_doctor_survives_what_it_examines(code, complaint):
    assert doctor._child(code) == (None, complaint)


@pytest.mark.fault
def test_a_patient_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(doctor, "CHILD_SECONDS", 0.5)

    assert doctor._child("import time; time.sleep(60)") == (None, "no answer within 0.5 s")


def test_a_library_that_prints_does_not_spoil_the_answer():
    assert doctor._child("print('hello')\nprint(json.dumps([1, 2]))") == ([1, 2], "")


def test_a_full_disk_is_bad(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**12, 10**12, 10**6))
    finding = doctor._disk(tmp_path / "not" / "there" / "yet")

    assert finding.state == "bad"
    assert str(tmp_path) in finding.found
    assert finding.mend


def test_a_failing_processor_is_bad_and_a_failing_card_a_note():
    card = {"name": "cuda", "title": "NVIDIA GPU", "ok": False, "note": "no driver.", "step_s": None}

    assert doctor._device(card).state == "note"
    assert doctor._device(card | {"name": "cpu"}).state == "bad"
