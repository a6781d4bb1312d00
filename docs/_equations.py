"""Equations as MathML, made while the documentation is built: every browser shows it, and no page loads anything."""

from __future__ import annotations

import html
import re
from typing import Any

import griffe
from latex2mathml.converter import convert

_EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
_DIRECTIVE = re.compile(r"^\.\. math:: *(?P<first>.*)\n(?P<more>(?:[ \t]+\S.*\n)*)", re.MULTILINE)
_ROLE = re.compile(r":math:`(?P<latex>[^`]+)`")


def on_page_content(content: str, **_: Any) -> str:
    """Replace what `pymdownx.arithmatex` has marked (mkdocs calls this)."""
    return _EQUATION.sub(lambda found: mathml(html.unescape(found["latex"]), block=found["open"] == "["), content)


def mathml(latex: str, *, block: bool) -> str:
    """Return an equation as MathML that scrolls where it is wider than its page."""
    known = latex.strip().replace(r"\arg\max", r"\operatorname{argmax}")  # latex2mathml runs the two together
    equation = convert(known, display="block" if block else "inline")
    if "\\" in equation:
        raise ValueError(f"this equation holds something that cannot be shown: {latex}")
    return f'<div class="equation">{equation}</div>' if block else equation


class Docstrings(griffe.Extension):
    """Let docstrings say ``.. math::`` and ``:math:``, as the field does; mkdocstrings reads Markdown only."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object that was just read."""
        if obj.docstring is not None and "math:" in obj.docstring.value:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(docstring: str) -> str:
    """Replace the directive and the role by dollar signs.

    >>> to_markdown("Ramp :math:`r(t)`.")
    'Ramp $r(t)$.'
    """
    text = _DIRECTIVE.sub(lambda found: f"$$\n{found['first']}\n{found['more']}$$\n", f"{docstring}\n")
    return _ROLE.sub(lambda found: f"${found['latex']}$", text).rstrip("\n")
