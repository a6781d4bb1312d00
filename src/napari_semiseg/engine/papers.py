"""What the papers report, each figure in its own definition, to stand beside what was measured here.

Nothing here was measured by this program. Names of scores are those of `engine.evaluate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class PaperRow:
    """A row of a paper's table.

    Attributes
    ----------
    dataset : str
        What was scored: ``monuseg``, ``dsb2018``, ``consep``, ``tnbc``, ``bcss``, ``lucchi`` or ``lucchi++``.
    paper, method : str
    labeled : str
        Fraction of the training cells with labels; "0" for none.
    count : int or None
        How many cells that is in the paper, where it says so.
    scores : dict of str to float
        In [0, 1].
    trained : str
        What was learned from, where that is another data set: ``mitoemr`` or ``mitoemh``.
    """

    dataset: str
    paper: str
    method: str
    labeled: str
    count: int | None
    scores: dict[str, float]
    trained: str = ""

    def fits(self, labeled: str, cells: int | None) -> bool:
        """Whether it stands beside runs with these labels: the same fraction, or as many cells."""
        try:
            same = "/" in labeled and Fraction(labeled) == Fraction(self.labeled)
        except (ValueError, ZeroDivisionError):
            same = False
        return same or (labeled in ("0", "1") and labeled == self.labeled) or (bool(cells) and cells == self.count)


def paper_rows(dataset: str, trained: str = "") -> list[PaperRow]:
    """Return the papers' rows for a data set, by the name of its folder; empty for one that no paper here used.

    With `trained`, the name of another folder that was learned from, only rows of that pair.
    """
    scored, learned = _plain(dataset), _plain(trained)
    named = max((row.dataset for row in ROWS if scored.startswith(row.dataset)), key=len, default="")
    rows = [row for row in ROWS if row.dataset == named]
    return [row for row in rows if (learned.startswith(row.trained) if row.trained else not learned)]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


CDCL_METHODS = ("SupOnly", "TCSMv2", "CutMix", "GCT", "CCT", "CAC", "CDCL")
CDCL_UNET_METHODS = ("SupOnly, U-Net", "CDCL, U-Net")
CDCL_SCORES = ("dice", "iou", "accuracy", "specificity", "sensitivity")
_CDCL = {
    ("dsb2018", "1/32", None): (
        "83.93/73.96/96.12/97.52/85.31 85.04/75.40/96.07/96.61/90.97 86.03/77.10/96.97/97.82/89.39 "
        "85.50/77.68/97.00/98.55/83.39 86.13/76.91/96.75/97.38/88.51 86.40/77.58/96.57/98.27/86.27 "
        "87.49/79.35/96.99/98.38/88.43"
    ),
    ("dsb2018", "1/16", None): (
        "86.10/77.17/96.81/98.36/85.03 87.48/78.48/97.03/99.29/83.37 87.70/79.92/97.44/98.54/86.27 "
        "88.13/80.60/97.51/98.50/88.75 88.15/79.69/97.32/98.25/88.89 88.49/80.19/97.28/98.44/88.36 "
        "89.88/82.34/97.57/98.64/90.11"
    ),
    ("dsb2018", "1/8", None): (
        "87.38/79.24/97.09/98.71/86.05 88.42/80.40/97.48/98.37/88.48 88.32/80.92/97.69/99.03/86.41 "
        "88.80/81.10/97.49/98.53/88.31 89.08/81.25/97.52/98.73/88.61 89.37/81.94/97.63/98.34/90.79 "
        "90.09/82.68/97.69/98.68/90.57"
    ),
    ("monuseg", "1/32", 12): (
        "71.83/56.49/87.47/88.76/82.44 73.08/58.42/88.18/88.97/85.78 73.37/58.69/88.16/88.62/86.86 "
        "73.80/59.21/88.39/88.82/86.91 74.29/59.59/90.18/94.17/74.83 74.79/60.28/88.96/89.93/84.75 "
        "75.97/61.77/89.83/91.03/85.36"
    ),
    ("monuseg", "1/16", 24): (
        "74.72/60.29/90.23/93.82/76.40 75.78/61.55/90.49/93.22/79.66 76.20/62.12/90.01/91.52/84.49 "
        "76.63/62.66/90.45/92.37/83.19 76.59/62.45/90.10/91.71/83.41 77.12/63.16/90.24/91.50/85.17 "
        "77.77/64.07/91.01/93.12/83.04"
    ),
    ("monuseg", "1/8", 48): (
        "75.81/61.50/90.26/92.72/80.65 77.44/63.52/90.50/92.32/82.60 77.29/63.70/90.64/92.36/84.52 "
        "77.69/64.08/90.74/92.20/85.42 77.21/63.25/90.18/91.32/85.40 78.24/64.54/91.05/93.04/82.82 "
        "78.93/65.56/91.44/93.34/84.28"
    ),
}
_CDCL_UNET = {
    ("dsb2018", "1/32", None): "82.22/72.29/95.61/97.13/83.19 85.79/76.68/96.39/97.84/87.01",
    ("dsb2018", "1/16", None): "84.95/75.58/96.69/97.96/85.94 87.02/78.41/97.08/98.28/86.08",
    ("dsb2018", "1/8", None): "85.82/76.86/96.96/98.64/83.36 87.78/79.49/97.28/98.33/87.89",
    ("monuseg", "1/32", 12): "70.85/55.20/88.05/91.27/74.90 74.79/60.33/89.52/91.21/82.93",
    ("monuseg", "1/16", 24): "71.90/56.83/88.59/91.34/78.04 75.19/60.85/89.88/92.51/79.80",
    ("monuseg", "1/8", 48): "74.53/60.23/90.03/93.36/77.87 76.49/62.39/90.38/92.48/82.19",
}
_CDCL_FULL = {
    "dsb2018": "90.46/83.27/97.86/98.77/90.71 88.51/80.07/97.40/98.89/86.82",
    "monuseg": "79.97/66.92/92.37/95.69/79.13 77.59/63.78/91.41/94.78/78.14",
}

CRCFP_METHODS = ("DeepLab", "CCT", "CAC", "CDCL", "CRCFP")
_CRCFP = {
    ("1/32", 15): "60.09/73.89/79.45 41.13/50.31/74.33 67.40/79.33/86.14 62.72/75.95/81.66 71.72/82.60/88.86",
    ("1/16", 30): "56.20/70.80/75.27 40.99/49.56/75.17 71.44/82.47/88.27 60.63/74.40/79.99 72.08/82.91/88.58",
    ("1/8", 60): "59.67/73.59/78.98 40.90/50.00/74.63 74.56/84.73/89.91 57.07/71.63/76.29 75.57/85.19/90.28",
    ("1", 480): "71.29/82.49/87.52",
}
BCSS_METHODS = ("DeepLab", "CCT", "CAC", "CRCFP")
_BCSS = {
    "1/8": "40.99/55.96/66.53 22.84/32.01/56.14 44.67/58.97/72.43 47.09/61.84/73.20",
    "1/4": "53.03/68.52/75.70 30.63/43.24/62.43 58.65/73.33/78.60 61.06/75.21/80.87",
    "1/2": "56.26/71.33/78.07 29.78/41.63/61.94 60.44/74.67/80.50 61.86/75.73/81.18",
    "1": "61.29/75.49/81.10",
}
_BCSS_101 = {
    "1/8": "37.50/51.73/64.89 31.71/45.66/59.42 46.91/61.92/72.01 47.15/61.27/72.57",
    "1/4": "55.18/70.30/77.37 42.63/58.35/66.94 61.48/75.52/80.78 62.01/75.94/81.18",
    "1/2": "60.37/74.50/80.57 44.01/59.64/67.66 61.95/75.77/81.09 63.01/76.57/81.67",
    "1": "62.33/76.22/81.68",
}
_CSL = {
    "monuseg": (0.5823, 0.7666, 0.6209, 0.62, 0.6797, 0.6469, 0.59, 0.6488, 0.6354),
    "consep": (0.5700, 0.7375, 0.5139, 0.45, 0.5507, 0.4896, 0.52, 0.6266, 0.5448),
    "tnbc": (0.5590, 0.7121, 0.5870, 0.32, 0.4324, 0.3884, 0.37, 0.5101, 0.4833),
}
CSL_METHODS = (
    ("threshold on gray levels", "1"),
    ("supervised tiny CNN", "1"),
    ("Scale-Pretext", "0"),
    ("CSL, mse, mean of ten", "0"),
    ("CSL, mse, best of ten", "0"),
    ("CSL, mse, 80th percentile of ten", "0"),
    ("CSL, ce, mean of ten", "0"),
    ("CSL, ce, best of ten", "0"),
    ("CSL, ce, 80th percentile of ten", "0"),
)
DUALREL_METHODS = ("MT", "CCT", "GCT", "CPS", "DualRel")
_DUALREL = {
    ("mitoemr", "lucchi", "1/32"): "41.37/57.21 43.81/60.01 46.53/62.62 49.62/64.89 56.62/70.59",
    ("mitoemr", "lucchi", "1/16"): "42.84/58.66 45.54/62.40 48.41/65.52 51.59/67.48 58.87/73.41",
    ("mitoemr", "lucchi", "1/8"): "49.44/65.35 51.72/67.95 54.97/71.31 59.52/73.78 67.91/80.26",
    ("mitoemr", "lucchi", "1/2"): "58.25/71.87 64.97/78.12 68.04/81.92 73.32/84.40 79.37/88.29",
    ("mitoemr", "lucchi++", "1/32"): "38.44/53.15 40.00/54.84 43.85/59.01 46.38/61.84 53.92/68.11",
    ("mitoemr", "lucchi++", "1/16"): "39.98/54.46 42.82/56.97 45.83/61.84 47.32/63.88 55.01/70.36",
    ("mitoemr", "lucchi++", "1/8"): "46.91/60.72 48.31/62.04 51.25/67.49 56.47/71.53 65.64/78.78",
    ("mitoemr", "lucchi++", "1/2"): "55.16/66.78 61.22/71.92 65.77/77.20 67.05/80.07 72.93/84.16",
    ("mitoemh", "lucchi", "1/32"): "29.94/46.30 32.39/48.72 42.08/58.62 44.87/60.74 51.27/67.43",
    ("mitoemh", "lucchi", "1/16"): "30.52/46.99 33.10/49.51 43.14/59.57 46.00/61.73 52.57/68.53",
    ("mitoemh", "lucchi", "1/8"): "33.44/49.73 36.12/52.32 47.07/62.94 50.20/65.23 57.36/72.41",
    ("mitoemh", "lucchi", "1/2"): "43.59/60.32 45.60/62.16 55.10/66.57 58.75/72.62 62.13/76.36",
    ("mitoemh", "lucchi++", "1/32"): "35.85/52.92 35.30/52.96 43.97/60.45 48.65/65.66 55.93/71.33",
    ("mitoemh", "lucchi++", "1/16"): "37.52/53.46 36.95/53.84 45.18/61.55 50.44/66.59 57.48/72.63",
    ("mitoemh", "lucchi++", "1/8"): "38.34/54.67 37.75/54.71 45.97/62.39 52.14/67.12 58.26/73.15",
    ("mitoemh", "lucchi++", "1/2"): "48.87/65.13 49.10/65.48 49.91/65.78 59.49/72.18 63.74/77.56",
}


def _rows() -> Iterator[PaperRow]:
    for (dataset, labeled, count), text in _CDCL.items():
        for method, scores in zip(CDCL_METHODS, _cdcl_scores(dataset, text), strict=True):
            yield PaperRow(dataset, "CDCL 2022", method, labeled, count, scores)
    for (dataset, labeled, count), text in _CDCL_UNET.items():
        for method, scores in zip(CDCL_UNET_METHODS, _cdcl_scores(dataset, text), strict=True):
            yield PaperRow(dataset, "CDCL 2022", method, labeled, count, scores)
    for dataset, text in _CDCL_FULL.items():
        for method, scores in zip(("FullSup", "FullSup, U-Net"), _cdcl_scores(dataset, text), strict=True):
            yield PaperRow(dataset, "CDCL 2022", method, "1", 384 if dataset == "monuseg" else None, scores)
    two_class = ("miou_two_class", "mdice_two_class", "accuracy_pooled")
    for (labeled, count), text in _CRCFP.items():
        for method, scores in zip(CRCFP_METHODS, _scores(text, two_class), strict=False):
            yield PaperRow("monuseg", "CRCFP 2024", method, labeled, count, scores)
    for labeled, text in _BCSS.items():
        for method, scores in zip(BCSS_METHODS, _scores(text, ("miou", "mdice", "accuracy_classes")), strict=False):
            yield PaperRow("bcss", "CRCFP 2024", method, labeled, None, scores)
    for labeled, text in _BCSS_101.items():
        for method, scores in zip(BCSS_METHODS, _scores(text, ("miou", "mdice", "accuracy_classes")), strict=False):
            yield PaperRow("bcss", "CRCFP 2024", f"{method}, ResNet-101", labeled, None, scores)
    for dataset, values in _CSL.items():
        for (method, labeled), value in zip(CSL_METHODS, values, strict=True):
            yield PaperRow(dataset, "CSL 2023", method, labeled, None, {"dice": value})
    for (trained, dataset, labeled), text in _DUALREL.items():
        for method, scores in zip(DUALREL_METHODS, _scores(text, ("iou", "dice")), strict=True):
            yield PaperRow(dataset, "DualRel 2023", method, labeled, None, scores, trained)


def _cdcl_scores(dataset: str, text: str) -> list[dict[str, float]]:
    """Read figures of CDCL; the images of MoNuSeg are of one size, so that accuracy per image is that of all pixels."""
    rows = _scores(text, CDCL_SCORES)
    return [row | {"accuracy_pooled": row["accuracy"]} for row in rows] if dataset == "monuseg" else rows


def _scores(text: str, names: tuple[str, ...]) -> list[dict[str, float]]:
    """Read percentages: one word for each method, with a slash between its scores."""
    return [
        {name: round(float(value) / 100, 4) for name, value in zip(names, word.split("/"), strict=True)}
        for word in text.split()
    ]


ROWS: tuple[PaperRow, ...] = tuple(_rows())

DEFINITIONS = {
    "CDCL 2022": "foreground Dice and Jaccard per image, as its figures imply; it does not say whether of sub-images; "
    "accuracy of all pixels where images are of one size",
    "CRCFP 2024": "mean over all classes with background, all pixels together; mean of three draws",
    "CSL 2023": "foreground Dice per image; trained on all 37 images, channel and epoch chosen with their labels; its "
    "own maps opened and closed before scoring",
    "DualRel 2023": "foreground Jaccard and Dice, per image as most of its figures imply; fractions are of slices",
}
