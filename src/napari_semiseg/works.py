"""Works that more than one part of the program comes from, as a manuscript would print them.

What only one part comes from stands in its own file. A work has one wording, so that it is listed once.
"""

from __future__ import annotations

OTSU = "N. Otsu, A threshold selection method from gray-level histograms, IEEE Trans. Syst. Man Cybern. 9, 1979."
RUIFROK = (
    "A. C. Ruifrok, D. A. Johnston, Quantification of histochemical staining by color deconvolution, Analytical and "
    "Quantitative Cytology and Histology 23, 2001."
)
TARVAINEN = (
    "A. Tarvainen, H. Valpola, Mean teachers are better role models: weight-averaged consistency targets improve "
    "semi-supervised deep learning results, NeurIPS 2017."
)
YUN = (
    "S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo, CutMix: regularization strategy to train strong classifiers "
    "with localizable features, ICCV 2019."
)
YANG = (
    "L. Yang, L. Qi, L. Feng, W. Zhang, Y. Shi, Revisiting weak-to-strong consistency in semi-supervised semantic "
    "segmentation, CVPR 2023."
)
YANG_V2 = (
    "L. Yang, Z. Zhao, H. Zhao, UniMatch V2: pushing the limit of semi-supervised semantic segmentation, TPAMI 2025."
)
BOSERUP = (
    "N. Boserup, R. Selvan, Efficient self-supervision using patch-based contrastive learning for histopathology image "
    "segmentation, NLDL 2023."
)
SAHASRABUDHE = (
    "M. Sahasrabudhe et al., Self-supervised nuclei segmentation in histopathological images using attention, "
    "MICCAI 2020."
)
