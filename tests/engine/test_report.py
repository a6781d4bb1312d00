from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from napari_semiseg.engine.report import Picture, Report, Table, render, write_report


class Outline(HTMLParser):
    """Collects what a reader sees, and everything that a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.fetched = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data.strip())


@pytest.fixture
def report():
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    return Report(
        title="Nuclei of <b>a.tif</b>",
        lead="12 nuclei.",
        pictures=[Picture(pixels, "The image", {"agreed": (240, 228, 66)})],
        tables=[Table("Scores", ("", "Dice"), [("trained", 0.81234), ("threshold", None)], "Means.")],
        facts={"device": "cpu"},
    )


def outline_of(page):
    outline = Outline()
    outline.feed(page)
    return outline


def test_a_report_loads_nothing_from_elsewhere(report):
    outline = outline_of(render(report))

    assert outline.fetched
    assert all(address.startswith("data:image/png;base64,") for address in outline.fetched)
    assert "script" not in outline.tags


def test_text_is_shown_as_it_is_and_never_as_html(report):
    outline = outline_of(render(report))

    assert "b" not in outline.tags
    assert "Nuclei of <b>a.tif</b>" in outline.text


def test_a_picture_comes_back_pixel_by_pixel(report):
    [encoded] = re.findall(r"base64,([^\"]+)", render(report))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))

    np.testing.assert_array_equal(shown, report.pictures[0].pixels)


def test_numbers_have_three_decimals_and_empty_places_stay_empty(report):
    page = render(report)

    assert '<td class="number">0.812</td>' in page
    assert "<td>threshold</td><td></td>" in page
    assert "None" not in page


def test_a_report_is_one_file(report, tmp_path):
    write_report(tmp_path / "report.html", report)

    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(report)
