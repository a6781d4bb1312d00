"""A random forest over features of a pixel's surroundings, as a module: its trees are buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.feature import hessian_matrix_eigvals
from skimage.filters import gaussian, sobel
from sklearn.tree._tree import Tree
from torch import Tensor, nn

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

PIXELS_AT_ONCE = 1 << 15
"""Pixels that walk down a tree together: what they need stays in the cache."""


class PixelForest(nn.Module):
    """Scikit-image's multi-scale features of every pixel, and a forest that votes on them.

    Trees lie side by side in arrays of one length each, whatever they hold: a checkpoint has the shapes that the
    options say.

    Parameters
    ----------
    classes : int
        Number of classes, with background.
    trees, leaves, depth : int
        Number of trees, and the most leaves and levels of each.
    scales : int
        Number of scales of the features: 1, 2, 4 … pixels.
    """

    divisor = 1
    feature: Tensor
    limit: Tensor
    below: Tensor
    above: Tensor
    votes: Tensor

    def __init__(self, classes: int = 2, trees: int = 100, leaves: int = 2048, depth: int = 20, scales: int = 4):
        super().__init__()
        self.classes, self.depth, self.scales = classes, depth, scales
        self.reach = reach_of(scales)
        shape = trees, 2 * leaves - 1
        self.register_buffer("feature", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("limit", torch.zeros(shape))
        self.register_buffer("below", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("above", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("votes", torch.full((*shape, classes), 1 / classes))

    def features(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return intensity, edges and texture at every scale: (H, W, 3) in [0, 1] → (H, W, F)."""
        return multiscale_features(image, self.scales)

    def take_over(self, forest: RandomForestClassifier) -> None:
        """Copy the trees of a forest that was fitted to `features`; its classes are numbers below `classes`."""
        columns = np.asarray(forest.classes_, np.intp)
        for number, grown in enumerate(forest.estimators_):
            tree = grown.tree_
            count = tree.node_count
            leaf, own = tree.children_left < 0, np.arange(count)
            votes = np.zeros((count, self.classes))
            votes[:, columns] = tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True)
            for buffer, values in (
                (self.feature, np.where(leaf, 0, tree.feature)),
                (self.limit, np.where(leaf, 0.0, float32_at_most(tree.threshold))),
                (self.below, np.where(leaf, own, tree.children_left)),  # a leaf leads to itself
                (self.above, np.where(leaf, own, tree.children_right)),
                (self.votes, votes),
            ):
                buffer[number, :count] = torch.as_tensor(values).to(buffer)

    def probabilities(self, features: Tensor) -> Tensor:
        """Return the mean vote of all trees: features (P, F) → (P, classes)."""
        if features.device.type == "cpu":
            return self._voted_by_scikit_learn(features.numpy())
        return torch.cat([self._voted(part) for part in torch.split(features, PIXELS_AT_ONCE)])

    def _voted_by_scikit_learn(self, features: NDArray[np.float32]) -> Tensor:
        """Let scikit-learn's own trees vote, which are ten times as fast on a processor as gathering from tensors is.

        They are made anew for each block: that takes hundredths of a second, and no copy can grow old.
        """
        total = np.zeros((len(features), self.classes))
        for number in range(len(self.feature)):
            total += self._tree(number, features.shape[1]).predict(features)
        return torch.from_numpy(total / len(self.feature)).float()

    def _tree(self, number: int, width: int) -> Tree:
        below, above = self.below[number].numpy(), self.above[number].numpy()
        leaf = below == np.arange(len(below))
        tree = Tree(width, np.array([self.classes], np.intp), 1)
        nodes = np.zeros(len(below), tree.__getstate__()["nodes"].dtype)
        nodes["left_child"], nodes["right_child"] = np.where(leaf, -1, below), np.where(leaf, -1, above)
        nodes["feature"], nodes["threshold"] = self.feature[number].numpy(), self.limit[number].numpy()
        votes = self.votes[number].numpy().astype(np.float64)[:, None]
        state = {"max_depth": self.depth, "node_count": len(nodes), "nodes": nodes, "values": votes}
        tree.__setstate__(state)  # the way in which scikit-learn restores a tree itself
        return tree

    def _voted(self, features: Tensor) -> Tensor:
        pixels, width = features.shape
        flat, start = features.reshape(-1), torch.arange(pixels, device=features.device) * width
        total = torch.zeros(pixels, self.classes, device=features.device)
        for feature, limit, below, above, votes in zip(
            self.feature, self.limit, self.below, self.above, self.votes, strict=True
        ):
            node = torch.zeros(pixels, dtype=torch.int32, device=features.device)
            for _ in range(self.depth):
                goes_below = flat[start + feature[node]] <= limit[node]
                node = torch.where(goes_below, below[node], above[node])
            total += votes[node]
        return total / len(self.feature)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, classes, H, W): the logarithm of the votes, of images (B, 3, H, W) in [0, 1]."""
        height, width = image.shape[2:]
        found = [torch.from_numpy(self.features(one)) for one in image.permute(0, 2, 3, 1).float().cpu().numpy()]
        pixels = torch.stack(found).to(image.device).flatten(0, 2)
        voted = self.probabilities(pixels).clamp_min(1e-6).log()
        return voted.view(len(image), height, width, self.classes).permute(0, 3, 1, 2)


def multiscale_features(image: NDArray[np.float32], scales: int = 4) -> NDArray[np.float32]:
    """Return intensity, edges and texture of every channel at every scale.

    The same as `skimage.feature.multiscale_basic_features`, which takes all cores for itself.

    Parameters
    ----------
    image : ndarray, (H, W, 3), float32
    scales : int
        Number of scales: a Gaussian of sigma 1, 2, 4 … pixels.

    Returns
    -------
    ndarray, (H, W, 12 * scales), float32
        For each channel and scale: smoothed, its Sobel magnitude, and both eigenvalues of its Hessian.
    """
    found = []
    for channel in np.moveaxis(image, -1, 0):
        for scale in range(scales):
            smooth = gaussian(np.ascontiguousarray(channel), sigma=2.0**scale)  # type: ignore[no-untyped-call]
            down, across = np.gradient(smooth)
            hessian = [np.gradient(down, axis=0), np.gradient(down, axis=1), np.gradient(across, axis=1)]
            found += [smooth, sobel(smooth)]  # type: ignore[no-untyped-call]
            found += [*hessian_matrix_eigvals(hessian)]  # type: ignore[no-untyped-call]
    return np.stack(found, axis=-1).astype(np.float32, copy=False)


def reach_of(scales: int) -> int:
    """Return how far features see: a Gaussian is cut at 4 sigma, and two differences are taken of it."""
    return (4 << (scales - 1)) + 2


def float32_at_most(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 that is not greater: a float32 is at most the one where it is at most the other."""
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
