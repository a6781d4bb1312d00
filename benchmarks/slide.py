"""What a whole slide costs beside its network, and whether it comes out the same however it is cut.

python benchmarks/slide.py cost --slide SLIDE --run RUN         seconds outside of the network, peak of memory
python benchmarks/slide.py cuts --slide SLIDE --run RUN         block sizes and numbers of workers against each other
python benchmarks/slide.py seams --result RESULT                cells of another size, and none, against the result's
python benchmarks/slide.py monai --slide SLIDE --run RUN        MONAI's SlidingWindowInferer on the same network
python benchmarks/slide.py naive --slide SLIDE --result RESULT  a loop over blocks with scikit-image

A slide with truth is made by `make`, a run by `napari-semiseg train`. Each part prints one JSON object; peaks of memory
are those of a process of its own. MONAI is needed by its part alone: pip install monai.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_semiseg.blocks import Box, cells
from napari_semiseg.engine import infer
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.events import BlockDone
from napari_semiseg.io.images import open_image
from napari_semiseg.io.result import Result
from napari_semiseg.io.table import MARGIN, Measurements
from napari_semiseg.postprocess.classes import any_nucleus
from napari_semiseg.postprocess.merge import BlockwiseSplit, SplitRule

MEGA = 1e6
AT_ONCE = 40 * MEGA  # pixels that are also split without any cells


class Stopwatch:
    """Seconds of the clock and of the processor."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def around(self, work: Callable[..., Any], clock: Callable[[], float] = time.process_time) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            wall, cpu = time.perf_counter(), clock()
            try:
                return work(*args, **options)
            finally:
                self.wall += time.perf_counter() - wall
                self.cpu += clock() - cpu

        return timed


def peak_mb() -> int:
    """Return the most memory that this process has held."""
    scale = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / MEGA)


def make(args: argparse.Namespace) -> dict[str, Any]:
    """Make a slide and its truth, in one pass."""
    import zarr

    from napari_semiseg.synthetic import SyntheticSlide
    from napari_semiseg.synthetic._files import write_image

    slide = SyntheticSlide((args.side, args.side), seed=7, tissue_fraction=0.9)
    truth = zarr.create_array(
        args.slide.with_suffix("").with_suffix(".truth.zarr"), shape=slide.shape, chunks=(512, 512), dtype=np.uint32
    )

    class Kept:
        shape, mpp = slide.shape, slide.mpp

        def read(self, y: int, x: int, height: int, width: int) -> Any:
            image, instances, classes = slide.read(y, x, height, width)
            truth[y : y + height, x : x + width] = instances
            return image, instances, classes

    write_image(Kept(), args.slide)
    return {"side": args.side}


def cost(args: argparse.Namespace) -> dict[str, Any]:
    """Predict and split; of the time, tell what was spent in the network."""
    network, whole, before = Stopwatch(), Stopwatch(), peak_mb()
    infer._infer = network.around(infer._infer, time.thread_time)
    request = PredictRequest(
        run=str(args.run), images=(str(args.slide),), out=str(args.out), device="cpu", block=args.block
    )
    blocks = 0

    def work() -> Any:
        nonlocal blocks
        for event in predict(request):
            blocks += isinstance(event, BlockDone)
            if args.stop_after and blocks >= args.stop_after:
                return {"nuclei": None}
        return event.facts

    facts = whole.around(work)()
    area = np.prod(open_image(args.slide).shape) / MEGA
    return {
        "megapixels": round(area, 1),
        "blocks": blocks,
        "nuclei": facts["nuclei"],
        "network_cpu_s": round(network.cpu, 1),
        "outside_cpu_s": round(whole.cpu - network.cpu, 1),
        "outside_cpu_s_per_megapixel": round((whole.cpu - network.cpu) / area, 3),
        "outside_share_of_cpu": round(1 - network.cpu / whole.cpu, 3),
        "wall_s": round(whole.wall, 1),
        "peak_mb": peak_mb(),
        "peak_mb_before": before,
    }


def cuts(args: argparse.Namespace) -> dict[str, Any]:
    """Predict with several block sizes, and with workers of which one is killed; compare the nuclei."""
    results, killed = {}, {}
    for name, block, scheduler in (
        *((f"blocks of {block}", block, None) for block in args.blocks),
        *((f"{count} workers", args.blocks[-1], f"local:{count}") for count in args.workers),
    ):
        out = args.out / name.replace(" ", "-")
        request = PredictRequest(
            run=str(args.run), images=(str(args.slide),), out=str(out), device="cpu", block=block, scheduler=scheduler
        )
        midway = False
        for event in predict(request):
            if scheduler and isinstance(event, BlockDone) and event.done > event.total // 2 and not midway:
                midway, killed[name] = True, kill_a_worker()
        results[name] = Result.open(next(out.glob("*.ome.zarr")))
    first, *others = results
    found: dict[str, Any] = {
        "nuclei": {name: result.card.facts["nuclei"] for name, result in results.items()},
        "workers_killed": killed,
    }
    for name in others:
        found[name] = compare_results(results[first], results[name])
    return found


def kill_a_worker() -> int:
    """Kill one of the worker processes that this process has started, if there are several; return how many."""
    import psutil

    children = [child for child in psutil.Process().children() if any("spawn_main" in part for part in child.cmdline())]
    if len(children) > 1:
        children[0].kill()
    return int(len(children) > 1)


def compare_results(one: Result, other: Result) -> dict[str, Any]:
    """Return AJI and the largest difference of confidence, cell by cell of the slide."""
    overlap: dict[tuple[int, int], int] = {}
    apart = 0
    for cell in cells(one.shape, 2048):
        a, b = one.nuclei(cell), other.nuclei(cell)
        pairs, counts = np.unique(a.astype(np.uint64) << 32 | b, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            overlap[pair >> 32, pair & 0xFFFFFFFF] = overlap.get((pair >> 32, pair & 0xFFFFFFFF), 0) + count
        difference = one.confidence(cell).astype(np.int16) - other.confidence(cell)
        apart = max(apart, int(np.abs(difference).max()))
    return {"aji": aji(overlap), "confidence_apart": apart, **partition(overlap)}


def aji(overlap: dict[tuple[int, int], int]) -> float:
    """Return the aggregated Jaccard index of sparse overlaps: areas by pairs of ids, 0 for background."""
    area: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for pair, count in overlap.items():
        for side in (0, 1):
            area[side][pair[side]] = area[side].get(pair[side], 0) + count
    best: dict[int, tuple[float, int, int]] = {}
    for (a, b), count in overlap.items():
        if a and b:
            union = area[0][a] + area[1][b] - count
            best[a] = max(best.get(a, (0.0, 0, 0)), (count / union, count, b))
    common = sum(count for _, count, _ in best.values())
    union = sum(area[0][a] + area[1][b] - count for a, (_, count, b) in best.items())
    union += sum(size for a, size in area[0].items() if a and a not in best)
    taken = {b for _, _, b in best.values()}
    union += sum(size for b, size in area[1].items() if b and b not in taken)
    return round(common / union, 7) if union else 1.0


def partition(overlap: dict[tuple[int, int], int]) -> dict[str, int]:
    """Count nuclei of each side, and those that are the same to the pixel on both."""
    first, second = ({pair[side] for pair in overlap if pair[side]} for side in (0, 1))
    meets: tuple[dict[int, set[int]], dict[int, set[int]]] = ({}, {})
    for a, b in overlap:
        meets[0].setdefault(a, set()).add(b)
        meets[1].setdefault(b, set()).add(a)
    same = sum(len(meets[0][a]) == 1 and len(meets[1][next(iter(meets[0][a]))]) == 1 for a in first)
    return {"nuclei": len(first), "nuclei_other": len(second), "equal_to_the_pixel": same}


def seams(args: argparse.Namespace) -> dict[str, Any]:
    """Split the confidence of a result again with cells whose seams lie elsewhere, and compare nucleus by nucleus."""
    result = Result.open(args.result)
    split = result.card.facts["split"]
    rule = SplitRule(split["threshold"], split["strength"], split["min_area"], result.mpp)
    work = BlockwiseSplit(result.confidence, result.shape, rule, cell=args.cell)
    overlap: dict[tuple[int, int], int] = {}
    for keep in work.cells:
        b = work.number(keep, work.split(keep)).labels
        pairs, counts = np.unique(result.nuclei(keep).astype(np.uint64) << 32 | b, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            key = pair >> 32, pair & 0xFFFFFFFF
            overlap[key] = overlap.get(key, 0) + count
    found: dict[str, Any] = {"cells": [2048, args.cell], "aji": aji(overlap), **partition(overlap)}
    if np.prod(result.shape) <= AT_ONCE:
        whole = Box.whole(result.shape)
        labels = rule.apply(any_nucleus(result.confidence(whole)))
        pairs, counts = np.unique(result.nuclei(whole).astype(np.uint64) << 32 | labels, return_counts=True)
        met = {
            (pair >> 32, pair & 0xFFFFFFFF): count for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        }
        found["against_the_whole_at_once"] = {"aji": aji(met), **partition(met)}
    if args.truth:
        found |= against_truth(result, args.truth)
    return found


def against_truth(result: Result, truth: Path) -> dict[str, Any]:
    """Compare what is found near the seams with what is found elsewhere: nothing may be cut or doubled by them."""
    import zarr

    array = zarr.open_array(truth, mode="r")
    rates = {}
    for name, shift in (("seams", 0), ("elsewhere", 1024)):
        split = lost = whole = 0
        for line in range(2048 + shift, result.shape[0] - 256, 2048):
            band = Box(line - 128, 0, line + 128, result.shape[1])
            found, true = result.nuclei(band), array[band.slices]
            crossing = np.setdiff1d(np.intersect1d(true[127], true[128]), [0])
            for nucleus in crossing:
                here = true == nucleus
                ids, areas = np.unique(found[here], return_counts=True)
                parts = [i for i, a in zip(ids.tolist(), areas.tolist(), strict=True) if i and a > 0.2 * here.sum()]
                whole += 1
                lost += not parts
                split += len(parts) > 1
        rates[name] = {"true_nuclei": whole, "found_in_several": split, "not_found": lost}
    return {"true_nuclei_that_cross": rates}


def monai(args: argparse.Namespace) -> dict[str, Any]:
    """Predict a part of the slide by MONAI's inferer or by ours, to confidence as uint8 in memory."""
    image = open_image(args.slide)
    box = Box(0, 0, args.side, args.side).shifted(1024, 1024)
    predictor = load_predictor(args.run, torch.device("cpu"))
    watch = Stopwatch()

    def theirs() -> np.ndarray:
        from monai.inferers import SlidingWindowInferer

        pixels = torch.from_numpy(image.read(box)).permute(2, 0, 1)[None].float() / 255
        margin = -(-infer.halo(predictor.reach) // predictor.divisor) * predictor.divisor
        window = args.block + 2 * margin
        inferer = SlidingWindowInferer((window, window), sw_batch_size=1, overlap=2 * margin / window, mode="constant")
        with torch.inference_mode():
            logits = inferer(pixels, predictor.network)
            return np.asarray((logits.softmax(1)[0, 1:] * 255).round().to(torch.uint8))

    def ours() -> np.ndarray:
        return infer.confidence_map(
            predictor.network, image, box, device=predictor.device, divisor=predictor.divisor, reach=predictor.reach,
            block=args.block,
        )  # fmt: skip

    before = peak_mb()
    values = watch.around(theirs if args.theirs else ours)()
    return {
        "what": "monai" if args.theirs else "ours",
        "megapixels": round(box.area / MEGA, 1),
        "wall_s": round(watch.wall, 1),
        "cpu_s": round(watch.cpu, 1),
        "peak_mb": peak_mb(),
        "peak_mb_before": before,
        "mean": round(float(values.mean()), 3),
    }


def naive(args: argparse.Namespace) -> dict[str, Any]:
    """Split and measure the confidence of a result: ours, and a loop over blocks with scikit-image.

    Both fill and clean the mask, part it with a halo as wide, keep a nucleus where its centroid lies, give ids that are
    unique over the image, and measure the same: shape, box, confidence, intensity, optical density of two stains.
    `--bare` leaves the loop what is usually left out: halo, cleaning, stains, and the confidence in a nucleus.
    """
    result, image = Result.open(args.result), open_image(args.slide)
    box = Box(0, 0, args.side, args.side).shifted(1024, 1024)
    confidence, pixels = result.confidence(box)[0], image.read(box)
    rule = SplitRule(mpp=result.mpp)

    def ours() -> int:
        work = BlockwiseSplit(lambda part: confidence[None, *part.slices], box.shape, rule)
        sums = Measurements(mpp=result.mpp)
        labels = np.zeros(box.shape, np.uint32)
        for keep in work.cells:
            labels[keep.slices] = work.number(keep, work.split(keep)).labels
        padded = np.pad(labels, MARGIN)
        for keep in work.cells:
            part = padded[Box(keep.y0, keep.x0, keep.y1 + 2 * MARGIN, keep.x1 + 2 * MARGIN).slices]
            sums.add(keep, part, confidence=confidence[keep.slices], rgb=pixels[keep.slices])
        return len(sums.columns()["label"])

    def theirs() -> int:
        return bare_loop(confidence, pixels) if args.bare else whole_loop(confidence, pixels, rule)

    found: dict[str, Any] = {"megapixels": round(box.area / MEGA, 1), "bare": args.bare}
    for name, work in (("ours", ours), ("naive", theirs)):
        work()  # once for what is only slow the first time, such as imports
        watch = Stopwatch()
        found[f"{name}_nuclei"] = watch.around(work)()
        found[f"{name}_cpu_s"], found[f"{name}_wall_s"] = round(watch.cpu, 2), round(watch.wall, 2)
    found["times_faster_by_cpu"] = round(found["naive_cpu_s"] / found["ours_cpu_s"], 1)
    return found


SHAPE = (
    "label", "area", "perimeter", "centroid", "axis_major_length", "axis_minor_length", "eccentricity", "orientation",
    "bbox", "intensity_mean", "intensity_std",
)  # fmt: skip


def whole_loop(confidence: np.ndarray, pixels: np.ndarray, rule: SplitRule, block: int = 1024) -> int:
    """Do what our split and table do, as somebody would who knows scikit-image well; return the number of nuclei."""
    from scipy import ndimage as ndi
    from skimage.color import rgb2gray, rgb2hed
    from skimage.feature import peak_local_max
    from skimage.filters import gaussian
    from skimage.measure import label, regionprops_table
    from skimage.morphology import remove_small_holes, remove_small_objects
    from skimage.segmentation import watershed

    whole, tables, count = Box.whole(confidence.shape), [], 0
    result = np.zeros(confidence.shape, np.uint32)
    for keep in cells(confidence.shape, block):
        seen = keep.grown(rule.halo).intersect(whole)
        here, colors = confidence[seen.slices], pixels[seen.slices]
        mask = remove_small_holes(here > 127, max_size=rule.min_area - 1)
        mask = remove_small_objects(mask, max_size=rule.min_area - 1, connectivity=2)
        height = gaussian(ndi.distance_transform_edt(mask) * (here / 255), 1.5)
        peaks = peak_local_max(height, min_distance=5, labels=label(mask))
        seeds = np.zeros(mask.shape, np.int32)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        labels = watershed(-height, seeds, mask=mask)
        hed = rgb2hed(colors) * 6
        signals = np.stack([here / 255, rgb2gray(colors) * 255, hed[..., 0], hed[..., 1]], axis=-1)
        table = regionprops_table(labels, signals, properties=(*SHAPE, "intensity_max"))
        y, x = table["centroid-0"] + seen.y0, table["centroid-1"] + seen.x0
        own = (y >= keep.y0) & (y < keep.y1) & (x >= keep.x0) & (x < keep.x1)
        number = np.zeros(labels.max() + 1, np.uint32)
        number[table["label"][own]] = np.arange(1, own.sum() + 1) + count
        count += int(own.sum())
        owned = number[labels]
        np.copyto(result[seen.slices], owned, where=owned > 0)
        tables.append({name: values[own] for name, values in table.items()})
    return sum(len(table["label"]) for table in tables)


def bare_loop(confidence: np.ndarray, pixels: np.ndarray, block: int = 1024) -> int:
    """Do what everybody writes first, which cuts nuclei at every block; return the number of pieces."""
    from scipy import ndimage as ndi
    from skimage.feature import peak_local_max
    from skimage.measure import label, regionprops_table
    from skimage.segmentation import watershed

    count = 0
    for keep in cells(confidence.shape, block):
        mask = confidence[keep.slices] > 127
        distance = ndi.distance_transform_edt(mask)
        peaks = peak_local_max(distance, min_distance=5, labels=label(mask))
        seeds = np.zeros(mask.shape, np.int32)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        labels = watershed(-distance, seeds, mask=mask)
        count += len(regionprops_table(labels, pixels[keep.slices], properties=SHAPE)["label"])
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["make", "cost", "cuts", "seams", "monai", "naive"])
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--result", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--cell", type=int, default=1536)
    parser.add_argument("--stop-after", type=int, default=0, help="Blocks after which `cost` ends.")
    parser.add_argument("--blocks", type=int, nargs="*", default=[256, 512, 1024])
    parser.add_argument("--workers", type=int, nargs="*", default=[])
    parser.add_argument("--bare", action="store_true", help="The loop of `naive` without halo, cleaning and stains.")
    parser.add_argument("--theirs", action="store_true", help="MONAI's inferer instead of ours.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = args.out is None
    args.out = Path(tempfile.mkdtemp(prefix="slide-")) if made else args.out
    try:
        found = {
            "make": make, "cost": cost, "cuts": cuts, "seams": seams, "monai": monai, "naive": naive,
        }[args.part](args)  # fmt: skip
    finally:
        if made:
            shutil.rmtree(args.out, ignore_errors=True)
    print(json.dumps({"part": args.part, **found}))


if __name__ == "__main__":
    main()
