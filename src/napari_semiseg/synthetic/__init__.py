"""Synthetic slides stained with hematoxylin and eosin, of any size, with exact truth."""

from napari_semiseg.synthetic._nuclei import CLASSES
from napari_semiseg.synthetic.slide import SyntheticField, SyntheticSlide, synthetic_field

__all__ = ["CLASSES", "SyntheticField", "SyntheticSlide", "synthetic_field"]
