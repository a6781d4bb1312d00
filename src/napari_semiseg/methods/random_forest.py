"""A random forest on features at several scales: what interactive tools learn with.

L. Breiman, "Random forests", Machine Learning 45, 2001; S. Berg et al., "ilastik: interactive machine learning for
(bio)image analysis", Nature Methods 16, 2019.

    p(c | x) = 1/T Σ_t p_t(c | φ(x)),   φ(x) = (G_s * I, |∇ G_s * I|, eigenvalues of the Hessian of G_s * I)

                                   for every scale s and channel

ilastik                            here
features of the user's choice      all of `skimage.feature.multiscale_basic_features`, at the scales 1, 2, 4 and 8
100 trees, grown to the end        scikit-learn's forest of 100 trees, `depth` and `leaves` bounded, so that its size is
                                   known before it is fitted
every pixel that was painted       `pixels` of them, drawn evenly from all regions

Trees become tensors (`nn.forest.PixelForest`), which predict exactly as scikit-learn does: a checkpoint holds numbers
and no program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from napari_semiseg.data.batch import IGNORE, Batch
from napari_semiseg.errors import InputError
from napari_semiseg.methods._base import FittedMethod, MethodConfig, Task
from napari_semiseg.nn.forest import PixelForest, reach_of
from napari_semiseg.nn.network import Network

SCALES = 4


class RandomForestConfig(MethodConfig):
    """Options of `RandomForest`."""

    trees: int = Field(100, ge=1, le=1_000, description="Trees of the forest.")
    depth: int = Field(20, ge=1, le=64, description="Levels of a tree, at most.")
    leaves: int = Field(2_048, ge=2, le=65_536, description="Leaves of a tree, at most; ours.")
    pixels: int = Field(
        100_000, ge=100, le=10_000_000, description="Labeled pixels that are learned from, at most; ours."
    )


class RandomForest(FittedMethod):
    """Many decision trees on color, edges and texture around each pixel."""

    name: ClassVar[str] = "random_forest"
    title: ClassVar[str] = "Labels only, random forest"
    does: ClassVar[str] = "Decision trees were fitted to color, edges and texture of labeled pixels at several scales."
    references: ClassVar[tuple[str, ...]] = (
        "L. Breiman, Random forests, Machine Learning 45, 2001.",
        "S. Berg et al., ilastik: interactive machine learning for (bio)image analysis, Nature Methods 16, 2019.",
    )
    Config: ClassVar[type[MethodConfig]] = RandomForestConfig
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"
    margin: ClassVar[int] = reach_of(SCALES)

    def __init__(self, new_network: Callable[[], Network], task: Task, config: RandomForestConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.forest = PixelForest(task.classes, config.trees, config.leaves, config.depth, SCALES)
        self._counters: dict[str, float] = {}

    def fit(self, regions: Iterable[Batch]) -> None:
        """Draw pixels of all regions evenly, and grow the trees."""
        from sklearn.ensemble import RandomForestClassifier  # slow to import, and wanted here only

        features, classes = self.sample(regions)
        if not len(classes):
            raise InputError("No pixel of the labels can be learned from: all of them are to be ignored.")
        forest = RandomForestClassifier(
            self.config.trees,
            max_depth=self.config.depth,
            max_leaf_nodes=self.config.leaves,
            n_jobs=torch.get_num_threads(),
            random_state=self.task.seed,
        )
        self.forest.take_over(forest.fit(features, classes))
        self._counters = {"pixels": float(len(classes)), "features": float(features.shape[1])}

    def sample(self, regions: Iterable[Batch]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return features (P, F) and classes (P,) of drawn pixels: each labeled one is as likely as any other.

        Every pixel is given a random number, and those with the smallest are kept.
        """
        rng = np.random.default_rng([self.task.seed, 0xF0])
        drawn, features, classes = np.empty(0), np.empty((0, 0), np.float32), np.empty(0, np.int64)
        for batch in regions:
            assert batch.image_l is not None
            assert batch.label_l is not None
            label = batch.label_l[0].cpu().numpy()
            known = label != IGNORE
            found = self.forest.features(batch.image_l[0].permute(1, 2, 0).cpu().numpy())[known]
            drawn = np.concatenate([drawn, rng.random(len(found))])
            features = np.concatenate([features.reshape(-1, found.shape[1]), found])
            classes = np.concatenate([classes, label[known]])
            kept = np.sort(np.argsort(drawn, kind="stable")[: self.config.pixels])
            drawn, features, classes = drawn[kept], features[kept], classes[kept]
        return features, classes

    def predictor(self) -> nn.Module:
        """Return the forest."""
        return self.forest

    def counters(self) -> dict[str, float]:
        """Return how many pixels and features the forest was grown from."""
        return self._counters
