"""What ``project.json`` may hold."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import NewerVersion, Project, Tile, dump_project, parse_project


@pytest.fixture
def values(project, tile_box):
    """A good ``project.json`` as Python values; the project is closed."""
    project.add_tile(0, tile_box)
    project.close()
    return json.loads((project.path / "project.json").read_text("utf-8"))


def opened(project, values):
    text = values if isinstance(values, str) else json.dumps(values)
    (project.path / "project.json").write_text(text, "utf-8")
    with ProjectFolder.open(project.path) as again:
        return again.project


def test_what_is_written_is_what_is_read(project, values):
    assert opened(project, values) == project.project
    assert values["schema_version"] == 1
    assert values["tiles"][0]["box"] == [10, 20, 60, 80]
    assert values["images"][0] == {
        "path": "../HE_0412.svs",
        "name": "HE_0412",
        "series": 0,
        "level": 0,
        "axes": "YXC",
        "mpp": 0.25,
        "shape": [200, 300],
    }


@pytest.mark.parametrize("version", [2, 3, 10**6])
def test_a_newer_version_is_refused_in_one_plain_sentence_also_if_it_holds_what_nobody_knows_yet(
    project, values, version
):
    values |= {"schema_version": version, "holograms": [], "tiles": "somewhere else"}
    with pytest.raises(NewerVersion) as caught:
        opened(project, values)
    assert str(caught.value) == (
        f"'{project.path / 'project.json'}' was written by a newer version of napari-semiseg (format {version}; "
        "this version reads up to 1): update napari-semiseg to open it."
    )
    assert json.loads((project.path / "project.json").read_text("utf-8")) == values


@pytest.mark.parametrize("version", [0, -1, None, "1", 1.0, True, [1]])
def test_a_version_that_never_was_is_refused(project, values, version):
    with pytest.raises(InputError, match="names no version of the project format"):
        opened(project, values | {"schema_version": version})


def _change(path, value):
    def change(values):
        *way, last = path
        for key in way:
            values = values[key]
        values[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_change(("tiles", 0, "image"), 5), "tile t0001 lies on image 5, but there are 1 images"),
        (_change(("tiles", 0, "image"), -1), "tiles.0.image"),
        (_change(("tiles", 0, "box"), [0, 0, 201, 10]), "tile t0001 reaches outside its image"),
        (_change(("tiles", 0, "box"), [0, 0, 0, 10]), "at least one pixel"),
        (_change(("tiles", 0, "box"), [9, 9, 1, 1]), "at least one pixel"),
        (_change(("tiles", 0, "box"), [-5, 0, 5, 5]), "at least one pixel"),
        (_change(("tiles", 0, "box"), [0, 0, 5]), "tiles.0.box"),
        (_change(("tiles", 0, "box"), [0, 0, 10**9, 10**9]), "at most 4096 x 4096"),
        (_change(("tiles", 0, "box"), [0, 0, 10**30, 5]), "tiles.0.box"),
        (_change(("tiles", 0, "box"), [0.5, 0, 5, 5]), "tiles.0.box"),
        (_change(("tiles", 0, "id"), "../../etc"), "tiles.0.id"),
        (_change(("tiles", 0, "id"), "con"), "tiles.0.id"),
        (_change(("tiles", 0, "id"), "UPPER"), "tiles.0.id"),
        (_change(("tiles", 0, "id"), ""), "tiles.0.id"),
        (_change(("tiles", 0, "status"), "done"), "tiles.0.status"),
        (_change(("tiles", 0, "role"), "judge"), "tiles.0.role"),
        (_change(("tiles", 0, "set_at"), "yesterday"), "tiles.0.set_at"),
        (_change(("tiles",), 10**9), "tiles"),
        (_change(("images", 0, "mpp"), 0), "images.0.mpp"),
        (_change(("images", 0, "mpp"), -0.25), "images.0.mpp"),
        (_change(("images", 0, "mpp"), "NaN"), "images.0.mpp"),
        (_change(("images", 0, "shape"), [0, 5]), "images.0.shape"),
        (_change(("images", 0, "shape"), [10**18, 10**18]), "images.0.shape"),
        (_change(("images", 0, "path"), "a\0b"), "images.0.path"),
        (_change(("images", 0, "path"), ""), "images.0.path"),
        (_change(("images", 0, "path"), "x" * 10**5), "images.0.path"),
        (_change(("images", 0, "level"), -1), "images.0.level"),
        (_change(("classes",), []), "classes"),
        (_change(("classes",), [{"name": f"c{i}", "color": "#000000"} for i in range(300)]), "classes"),
        (_change(("classes",), [{"name": "a", "color": "#000000"}] * 2), "two classes have the same name"),
        (_change(("classes", 0, "color"), "red; background: url(x)"), "classes.0.color"),
        (_change(("next_tile",), 0), "next_tile"),
        (_change(("num_classes",), 10**9), "num_classes"),
        (lambda values: values["tiles"].append(values["tiles"][0]), "two tiles have the same id"),
        (lambda values: values["tiles"][0].pop("box"), "tiles.0.box"),
    ],
)
def test_a_project_that_cannot_be_is_refused_in_one_sentence_that_names_the_place(project, values, change, words):
    change(values)
    with pytest.raises(InputError) as caught:
        opened(project, values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "project.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10**5, "nested too deeply"),
        ('{"schema_version": 1, "images": ' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ('{"schema_version": 1, "schema_version": 2}', "gives 'schema_version' twice"),
        ('{"schema_version": 1, "next_tile": NaN}', "NaN"),
        ('{"schema_version": 1, "next_tile": 1e400}', "too large a number"),
        ("[1]", "holds no project"),
        ("", "no valid JSON"),
        ("x" * (16 * 2**20 + 1), "larger than any project"),
    ],
    ids=["deep", "nested", "twice", "nan", "inf", "list", "empty", "large"],
)
def test_json_that_nobody_should_trust_is_refused(project, values, text, words):
    with pytest.raises(InputError, match=words) as caught:
        opened(project, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_project_cannot_change_by_accident(project):
    with pytest.raises(ValidationError, match="frozen"):
        project.project.next_tile = 5
    with pytest.raises(ValidationError, match="frozen"):
        Tile(id="a", image=0, box=Box(0, 0, 1, 1)).status = "complete"


def test_dumping_and_parsing_are_inverse(tmp_path):
    project = Project(tiles=(), next_tile=7)
    assert parse_project(json.dumps(dump_project(project)).encode(), tmp_path) == project
