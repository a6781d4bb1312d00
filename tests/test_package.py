"""What is installed, and what importing it costs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_semiseg

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "napari", "numpy", "qtpy", "skimage", "zarr")


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, napari_semiseg; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in napari_semiseg.__all__ if name != "__version__"])
def test_every_public_name_is_there_and_explains_itself(name):
    assert getattr(napari_semiseg, name).__doc__


def test_types_are_declared_for_exactly_the_public_names():
    declared = set(re.findall(r" as (\w+)", (ROOT / "src/napari_semiseg/__init__.pyi").read_text()))

    assert declared == set(napari_semiseg.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'segment'"):
        napari_semiseg.segment  # noqa: B018


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Build the wheel and install it, alone, into an empty folder."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    target = folder / "target"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    return target


def distribution(folder: Path) -> Distribution:
    [found] = distributions(path=[str(folder)])
    return found


def test_the_wheel_carries_its_manifest_types_and_license(installed):
    package = installed / "napari_semiseg"

    assert (package / "napari.yaml").read_text() == (ROOT / "src/napari_semiseg/napari.yaml").read_text()
    assert (package / "py.typed").exists()
    assert any(path.name == "LICENSE" for path in distribution(installed).files)


def test_the_wheel_carries_every_sample_file(installed):
    source = {path.relative_to(ROOT): path for path in (ROOT / "sample_data").rglob("*") if path.is_file()}

    assert len(source) > 2
    for name, path in source.items():
        assert (installed / "napari_semiseg" / name).read_bytes() == path.read_bytes(), name


def test_the_installed_package_finds_its_own_samples(installed):
    code = "from napari_semiseg.samples import sample_folder; print(sample_folder())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(installed)},
        cwd=installed,
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(done.stdout.strip()) == installed / "napari_semiseg" / "sample_data"


def test_napari_finds_the_manifest_through_the_entry_point(installed):
    [entry] = [point for point in distribution(installed).entry_points if point.group == "napari.manifest"]
    module, _, file = entry.value.partition(":")

    assert (module, file) == ("napari_semiseg", "napari.yaml")
    assert PluginManifest.from_file(installed / module / file).name == "napari-semiseg"


def test_the_metadata_ask_for_no_qt_binding_and_pin_nothing_above():
    [found] = [dist for dist in distributions() if dist.name == "napari-semiseg"]
    base = [requirement for requirement in found.requires if "extra ==" not in requirement]

    assert not [requirement for requirement in base if re.match(r"(?i)(pyqt|pyside)\d", requirement)]
    assert not [requirement for requirement in base if "<" in requirement or "==" in requirement or "~=" in requirement]
    assert found.metadata["License-Expression"] == "BSD-3-Clause"
    assert "Framework :: napari" in found.metadata.get_all("Classifier")


def test_everything_that_the_manifest_names_can_be_imported():
    manifest = PluginManifest.from_file(ROOT / "src/napari_semiseg/napari.yaml")

    assert manifest.contributions.commands
    manifest.validate_imports()


def test_the_project_speaks_of_no_machine_but_the_user_s():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    words = re.compile(r"/work/|/root/|\.\./shared|pypi\.org|pythonhosted")
    offenders = []
    for name in listed.stdout.split():
        path = ROOT / name
        if (
            path.is_file()
            and path != Path(__file__)
            and path.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".cff", ""}
        ):
            offenders += [
                name for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if words.search(line)
            ]

    assert offenders == []
