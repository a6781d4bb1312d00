"""What a training is asked for: the options of ``train``, in the dock, on the command line and in Python alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from napari_semiseg.config import Config
from napari_semiseg.errors import InputError

Preset = Literal["quick", "standard", "best", "paper"]


class TrainRequest(Config):
    """A training run: what to learn from, how, and where to put it."""

    images: tuple[str, ...] = Field((), description="Images or folders of images.")
    dataset: str | None = Field(None, description="A folder with images/, labels/ and splits.json, instead of images.")
    project: str | None = Field(None, description="A .semiseg project folder, instead of images.")
    out: str = Field("", description="The run folder to make.")
    labels: str | None = Field(None, description="Folder of instance labels with the images' stems.")
    classes: str | None = Field(None, description="Folder of class maps with the images' stems.")
    labeled: str | None = Field(
        None, description="Cells whose labels may be seen: a count, a fraction, or a file that lists them."
    )
    subimage: int = Field(250, ge=32, le=4096, description="Side of a cell, in pixels.")
    splits: str | None = Field(None, description="A splits.json to use instead of the data set's own.")
    split: str = Field("train", description="The part of the data set to learn from; several as train+val.")
    validation: float = Field(
        0.25, ge=0, le=0.5, description="Share of the labeled cells kept for judging, from four cells on."
    )
    method: str = Field("auto", description="Name of a method, or auto.")
    network: str = Field("auto", description="Name of a network, or auto.")
    weights: str = Field("auto", description="Weights to begin with: auto, none, imagenet, or a .safetensors file.")
    preset: Preset = Field("quick", description="How much time and network to spend.")
    variant: str = Field(
        "", description="A row of the method's paper, or what a released code does, by name: instead of a preset."
    )
    minutes: float | None = Field(None, gt=0, le=100_000, description="Minutes of training.")
    steps: int | None = Field(None, ge=1, le=10_000_000, description="Optimizer steps, instead of minutes.")
    mpp: float | None = Field(None, gt=0.01, lt=100, description="Pixel size to work at, in µm.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    seed: int = Field(0, ge=0, lt=2**31, description="Fixes everything that is drawn.")
    set: dict[str, Any] = Field(
        default_factory=dict, description="Further options of the method, the crops and the optimizer."
    )
    resume: bool = Field(False, description="Go on where the run folder's last checkpoint stands.")
    changed_images: bool = Field(
        False, description="With resume: go on with images that have changed since the run began, as they are now."
    )

    @model_validator(mode="before")
    @classmethod
    def _a_variant_is_of_its_paper(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not values.get("variant"):
            return values
        preset = values.get("preset", "paper")
        if preset != "paper":
            raise InputError(
                f"--variant {values['variant']} says all that the preset '{preset}' would: leave --preset out, and "
                "give --minutes or --steps for a shorter training."
            )
        return {**values, "preset": preset}

    @model_validator(mode="after")
    def _refuse_what_would_be_passed_over(self) -> Self:
        if self.resume:  # a run that goes on has its own
            return self
        given = [name for name in ("labels", "classes", "labeled", "splits") if getattr(self, name) is not None]
        if self.project and given:
            raise InputError(f"A project has its own labels: leave --{given[0]} out, or name images instead.")
        if self.images and (self.splits or self.split != "train"):
            which = "splits" if self.splits else "split"
            raise InputError(f"--{which} chooses a part of a data set: name a folder with images/ and labels/ in it.")
        if self.images and not self.labels and (self.classes or self.labeled not in (None, "0")):
            which = "classes" if self.classes else "labeled"
            raise InputError(
                f"--{which} says something about labels, and there are none: give --labels, or leave it out."
            )
        return self
