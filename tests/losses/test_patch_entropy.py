import math

import pytest
import torch

from napari_semiseg.losses.patch_entropy import (
    DrawnPatches,
    binary_entropy,
    draw_by_confidence,
    draw_from_top,
    draw_patches,
    patch_entropy_contrast,
    window_means,
)
from napari_semiseg.losses.patch_similarity import gray_values, patch_similarity

SIZE, STRIDE, COUNT = 3, 2, 4


@pytest.fixture
def maps():
    """Two images of 9 x 8 pixels and two confidence maps of each."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 9, 8, generator=generator, dtype=torch.float64) * 0.95 + 0.05
    confidence = torch.rand(2, 2, 9, 8, generator=generator, dtype=torch.float64).requires_grad_()
    return image, confidence


@pytest.fixture
def drawn(maps):
    torch.manual_seed(1)
    return draw_patches(maps[1], size=SIZE, stride=STRIDE, count=COUNT)


def entropy_of(p):
    return -sum(q * max(math.log2(q), -100.0) if q > 0 else 0.0 for q in (p, 1 - p))


def window_mean(values, top, left):
    inside = [values[i][j] for i in range(top, top + SIZE) for j in range(left, left + SIZE)]
    return sum(inside) / SIZE**2


def test_the_means_are_those_of_windows_at_multiples_of_the_stride(maps):
    confidence = maps[1].detach()
    for found, values in (
        (window_means(confidence, SIZE, STRIDE), confidence.tolist()),
        (window_means(binary_entropy(confidence), SIZE, STRIDE), confidence.clone().apply_(entropy_of).tolist()),
    ):
        assert found.shape == (2, 2, 4, 3)
        for m, k, row, column in torch.ones_like(found).nonzero().tolist():
            expected = window_mean(values[m][k], STRIDE * row, STRIDE * column)
            assert found[m, k, row, column].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("side", "candidates"), [(300, 13), (250, 11), (50, 1)])
def test_a_crop_holds_as_many_candidates_as_fit(side, candidates):
    assert window_means(torch.zeros(1, 1, side, side), 50, 20).shape[-2:] == (candidates, candidates)


def test_certain_pixels_have_no_entropy_and_even_ones_one_bit():
    assert binary_entropy(torch.tensor([0.0, 1.0, 0.5])).tolist() == [0.0, 0.0, 1.0]


def certainty(levels):
    """One map in which the candidates, side by side, have the given confidence throughout."""
    return torch.tensor(levels).repeat_interleave(SIZE).expand(1, 1, SIZE, -1)


def test_windows_are_drawn_in_proportion_to_their_certainty_but_none_is_left_out():
    levels = [0.5, 0.9, 0.99, 1.0]
    torch.manual_seed(2)
    drawn = draw_patches(certainty(levels), size=SIZE, stride=SIZE, count=200_000)
    found = torch.bincount(drawn.left // SIZE, minlength=4).double() / 200_000
    weights = torch.tensor([max(1 - entropy_of(level), 0.001) for level in levels], dtype=torch.float64)
    expected = weights / weights.sum()
    deviation = (expected * (1 - expected) / 200_000).sqrt()
    assert ((found - expected).abs() < 4 * deviation).all()
    assert found[0] > 0


def test_a_window_is_positive_as_often_as_it_is_confident():
    levels = [0.2, 0.5, 0.9]
    maps = certainty(levels).expand(30_000, 1, SIZE, -1)
    torch.manual_seed(3)
    drawn = draw_patches(maps, size=SIZE, stride=SIZE, count=1)
    for at, level in enumerate(levels):
        positive = drawn.positive[drawn.left == SIZE * at].double()
        deviation = math.sqrt(level * (1 - level) / len(positive))
        assert positive.mean().item() == pytest.approx(level, abs=4 * deviation)


def test_a_window_drawn_twice_has_one_sign(maps):
    torch.manual_seed(4)
    drawn = draw_patches(maps[1], size=SIZE, stride=STRIDE, count=200)
    signs = {}
    for image, channel, top, left, positive in zip(
        drawn.image.tolist(),
        drawn.channel.tolist(),
        drawn.top.tolist(),
        drawn.left.tolist(),
        drawn.positive.tolist(),
        strict=True,
    ):
        signs.setdefault((image, channel, top, left), set()).add(positive)
    assert len(signs) == 2 * 2 * 12
    assert all(len(sign) == 1 for sign in signs.values())
    assert {sign for (sign,) in signs.values()} == {False, True}


def test_confident_windows_are_drawn_as_positives_and_the_others_as_negatives():
    levels, count = [0.1, 0.2, 0.3, 0.9], 100_000
    torch.manual_seed(11)
    drawn = draw_by_confidence(certainty(levels), size=SIZE, stride=SIZE, count=count)
    p = torch.tensor(levels, dtype=torch.float64) / sum(levels)
    for sign, expected in ((True, p), (False, (1 - p) / (len(levels) - 1))):
        at = drawn.left[drawn.positive == sign] // SIZE
        found = torch.bincount(at, minlength=4).double() / count
        assert len(at) == count
        assert expected.sum().item() == pytest.approx(1.0)
        assert ((found - expected).abs() < 4 * (expected * (1 - expected) / count).sqrt()).all()


def test_an_exponent_sharpens_what_is_drawn_by_confidence():
    torch.manual_seed(12)
    drawn = draw_by_confidence(certainty([0.2, 0.4]), size=SIZE, stride=SIZE, count=50_000, exponent=2.0)
    share = (drawn.left[drawn.positive] == 0).double().mean().item()
    assert share == pytest.approx(0.04 / 0.2, abs=4 * math.sqrt(0.16 / 50_000))


def test_positives_come_evenly_from_the_most_confident_windows_and_negatives_from_the_rest():
    levels = [0.3, 0.9, 0.1, 0.8, 0.5]
    torch.manual_seed(13)
    drawn = draw_from_top(certainty(levels), size=SIZE, stride=SIZE, count=30_000, top=2)
    for sign, places in ((True, [1, 3]), (False, [0, 2, 4])):
        share = torch.bincount(drawn.left[drawn.positive == sign] // SIZE, minlength=5).double() / 30_000
        assert share.nonzero().flatten().tolist() == places
        assert (share[places] - 1 / len(places)).abs().max() < 4 * math.sqrt(0.25 / 30_000)


def test_with_few_windows_the_least_confident_of_them_stays_a_negative():
    drawn = draw_from_top(certainty([0.3, 0.9, 0.1]), size=SIZE, stride=SIZE, count=50, top=50)
    assert set((drawn.left[drawn.positive] // SIZE).tolist()) == {0, 1}
    assert set((drawn.left[~drawn.positive] // SIZE).tolist()) == {2}


SAMPLERS = pytest.mark.parametrize("draw", [draw_patches, draw_by_confidence, draw_from_top])


@SAMPLERS
def test_no_window_shows_a_pixel_that_may_not_be_looked_at(maps, draw):
    shown = torch.ones(2, 9, 8, dtype=torch.bool)
    shown[0, :, 5:] = False
    shown[1, 4, 3] = False
    torch.manual_seed(14)
    drawn = draw(maps[1], size=SIZE, stride=STRIDE, count=200, shown=shown)
    assert set(drawn.image.tolist()) == {0, 1}
    for image, (top, left, bottom, right) in zip(drawn.image.tolist(), drawn.boxes.tolist(), strict=True):
        assert shown[image, top:bottom, left:right].all()
    corners = set(zip(drawn.image.tolist(), drawn.top.tolist(), drawn.left.tolist(), strict=True))
    assert len(corners) == 4 * 2 + 4 * 3 - 2  # all that are left: the hidden pixel lies in two windows


@SAMPLERS
def test_an_image_without_a_whole_window_gives_none_and_the_others_theirs(maps, draw):
    shown = torch.zeros(2, 9, 8, dtype=torch.bool)
    nothing = draw(maps[1], size=SIZE, stride=STRIDE, count=COUNT, shown=shown)
    assert len(nothing.image) == len(nothing.positive) == 0
    assert patch_entropy_contrast(*maps, nothing) is None
    shown[1] = True
    drawn = draw(maps[1], size=SIZE, stride=STRIDE, count=COUNT, shown=shown)
    assert set(drawn.image.tolist()) == {1}
    assert set(drawn.channel.tolist()) == {0, 1}


@pytest.mark.parametrize("draw", [draw_by_confidence, draw_from_top])
def test_a_map_with_a_single_window_has_no_negative(draw):
    drawn = draw(certainty([0.5]), size=SIZE, stride=SIZE, count=COUNT)
    assert drawn.positive.tolist() == [True] * COUNT


@SAMPLERS
@pytest.mark.parametrize("value", [0.0, 1.0, math.nan])
def test_maps_of_one_value_can_be_drawn_from(draw, value):
    drawn = draw(torch.full((1, 2, 9, 9), value), size=SIZE, stride=STRIDE, count=COUNT)
    assert set(drawn.channel.tolist()) == {0, 1}


def test_each_map_gets_its_share_and_boxes_lie_inside(maps, drawn):
    assert torch.bincount(2 * drawn.image + drawn.channel).tolist() == [COUNT] * 4
    assert drawn.boxes.shape == (16, 4)
    assert drawn.boxes.min() >= 0
    assert (drawn.boxes[:, 2:] <= torch.tensor(maps[1].shape[-2:])).all()
    assert (drawn.boxes[:, 2:] - drawn.boxes[:, :2] == SIZE).all()


def test_the_global_seed_fixes_what_is_drawn(maps):
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(draw_patches(maps[1], size=SIZE, stride=STRIDE, count=COUNT))
    assert torch.equal(drawn[0].boxes, drawn[1].boxes)
    assert torch.equal(drawn[0].positive, drawn[1].positive)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_saturated_map_has_one_sign_and_teaches_nothing(level):
    image, confidence = torch.rand(2, 3, 9, 9), torch.full((2, 1, 9, 9), level)
    drawn = draw_patches(confidence, size=SIZE, stride=STRIDE, count=COUNT)
    assert drawn.positive.unique().tolist() == [bool(level)]
    assert patch_entropy_contrast(image, confidence, drawn) is None


def test_a_map_of_nan_can_be_drawn_from_and_gives_a_loss_of_nan():
    torch.manual_seed(6)
    image, confidence = torch.rand(4, 3, 9, 9), torch.full((4, 1, 9, 9), math.nan)
    terms = patch_entropy_contrast(image, confidence, draw_patches(confidence, size=SIZE, stride=STRIDE, count=10))
    assert math.isnan(terms.intra.item())


def similarity_loop(r, p, kind):
    total = 0.0
    for a, b in zip(r, p, strict=True):
        cross = a * torch.log2(b) + (1 - a) * torch.log2(1 - b)
        total = total + (cross if kind == "ce" else -((a - b) ** 2))
    return total / len(r)


@pytest.mark.parametrize("kind", ["mse", "ce"])
def test_a_similarity_is_the_mean_over_all_values_of_two_patches(agree, kind):
    generator = torch.Generator().manual_seed(7)
    anchors, patches = (torch.rand(n, 6, generator=generator, dtype=torch.float64).requires_grad_() for n in (2, 3))
    weights = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    expected = sum(weights[i, j] * similarity_loop(anchors[i], patches[j], kind) for i in range(2) for j in range(3))
    agree((weights * patch_similarity(anchors, patches, kind)).sum(), expected, anchors, patches)


def test_the_cross_entropy_of_black_and_white_is_bounded():
    values = torch.tensor([[0.0, 1.0]], requires_grad=True)
    same = patch_similarity(values, values, "ce")
    opposite = patch_similarity(values, 1 - values, "ce")
    (same + opposite).sum().backward()
    assert same.item() == pytest.approx(0.0, abs=1e-4)
    assert opposite.item() == pytest.approx(math.log2(1e-6), rel=1e-2)
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("kind", ["mse", "ce"])
def test_similarities_of_full_patches_keep_their_precision_in_single_precision(kind):
    generator = torch.Generator().manual_seed(8)
    patches = torch.rand(20, 7500, generator=generator, dtype=torch.float64)
    exact = patch_similarity(patches[:5], patches, kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = patch_similarity(patches[:5].float(), patches.float(), kind)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 2e-6  # differences of 1e-3 decide


def patches_of(image, confidence, drawn):
    """F = I·C of each drawn patch, cut out one by one, as (class, sign, values)."""
    found = []
    for row, (top, left, bottom, right) in enumerate(drawn.boxes.tolist()):
        m, k = drawn.image[row].item(), drawn.channel[row].item()
        seen = image[m, :, top:bottom, left:right] * confidence[m, k, top:bottom, left:right]
        found.append((k, drawn.positive[row].item(), seen.flatten()))
    return found


def loop(image, confidence, drawn, anchors, kind, norms):
    """Eqs. 5 and 6 (with its logarithm) over classes, anchors, positives and what they are set against."""
    seen = patches_of(image, confidence, drawn)
    intra, inter = 0.0, 0.0
    for k, rows in enumerate(anchors):
        positives = [values for c, sign, values in seen if c == k and sign]
        negatives = [values for c, sign, values in seen if c == k and not sign]
        others = [values for c, sign, values in seen if c != k and sign]
        for row in rows.tolist():
            assert seen[row][:2] == (k, True)
            r = seen[row][2]
            unlike = sum(torch.exp(similarity_loop(r, n, kind)) for n in negatives)
            other = sum(torch.exp(similarity_loop(r, q, kind)) for q in others)
            for p in positives:
                alike = torch.exp(similarity_loop(r, p, kind))
                intra = intra - torch.log(alike / unlike) / norms[k]
                inter = inter - torch.log(alike / other) / norms[k]
    return intra, inter


@pytest.mark.parametrize("kind", ["mse", "ce"])
def test_the_losses_are_those_of_the_released_code(agree, maps, drawn, kind):
    image, confidence = maps
    torch.manual_seed(9)
    terms = patch_entropy_contrast(image, confidence, drawn, similarity=kind, anchors=3)
    assert [len(rows) for rows in terms.anchors] == [3, 3]
    intra, inter = loop(image, confidence, drawn, terms.anchors, kind, norms=[3**2 * 2] * 2)
    agree(terms.intra, intra, confidence)
    agree(terms.inter, inter, confidence)


@pytest.mark.parametrize("kind", ["mse", "ce"])
def test_the_losses_are_those_of_the_paper_over_all_pairs(agree, maps, drawn, kind):
    image, confidence = maps
    terms = patch_entropy_contrast(image, confidence, drawn, similarity=kind, normalizer="paper")
    everyone = [drawn.rows(k, positive=True) for k in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(terms.anchors, everyone, strict=True))
    assert terms.positives == tuple(map(len, everyone))
    assert sum(terms.positives) + sum(terms.negatives) == 16
    intra, inter = loop(image, confidence, drawn, everyone, kind, norms=[len(rows) ** 2 for rows in everyone])
    agree(terms.intra, intra, confidence)
    agree(terms.inter, inter, confidence)


def test_anchors_are_drawn_evenly_among_the_positives(maps, drawn):
    torch.manual_seed(10)
    terms = patch_entropy_contrast(*maps, drawn, anchors=30_000)
    for k, rows in enumerate(terms.anchors):
        among = drawn.rows(k, positive=True)
        share = torch.bincount(rows, minlength=16)[among].double() / 30_000
        assert share.sum().item() == pytest.approx(1.0)
        assert (share - 1 / len(among)).abs().max() < 4 * math.sqrt(0.25 / 30_000)


def test_a_single_class_has_nothing_to_set_it_against(maps, drawn):
    image, confidence = maps[0], maps[1][:, :1]
    only = drawn.channel == 0
    drawn = DrawnPatches(
        drawn.image[only], drawn.channel[only], drawn.top[only], drawn.left[only], drawn.positive[only], SIZE
    )
    terms = patch_entropy_contrast(image, confidence, drawn)
    (gradient,) = torch.autograd.grad(terms.inter, maps[1])
    assert terms.inter.item() == 0.0
    assert torch.equal(gradient, torch.zeros_like(maps[1]))
    assert terms.intra.item() != 0.0


@pytest.mark.parametrize("missing", [True, False], ids=["positive", "negative"])
def test_a_class_without_a_sign_teaches_nothing(maps, drawn, missing):
    signs = torch.where(drawn.channel == 1, not missing, drawn.positive)
    drawn = DrawnPatches(drawn.image, drawn.channel, drawn.top, drawn.left, signs, SIZE)
    assert patch_entropy_contrast(*maps, drawn) is None


def test_pixels_in_no_drawn_window_get_no_gradient(maps, drawn):
    image, confidence = maps
    terms = patch_entropy_contrast(image, confidence, drawn)
    (gradient,) = torch.autograd.grad(terms.intra + terms.inter, confidence)
    covered = torch.zeros(confidence.shape, dtype=torch.bool)
    for row, (top, left, bottom, right) in enumerate(drawn.boxes.tolist()):
        covered[drawn.image[row], drawn.channel[row], top:bottom, left:right] = True
    assert 0 < covered.sum() < covered.numel()
    assert torch.equal(gradient != 0, covered)


@pytest.mark.parametrize("kind", ["cosine", "kl", "mi"])
def test_gray_values_and_features_of_patches_are_contrasted_in_the_same_way(agree, maps, drawn, kind):
    image, confidence = maps
    generator = torch.Generator().manual_seed(15)
    weight = torch.rand(SIZE**2, 4, generator=generator, dtype=torch.float64)

    class Linear(torch.nn.Module):
        def forward(self, gray):
            assert gray.shape[1:] == (1, SIZE, SIZE)
            return gray.flatten(1) @ weight

    featurizer = Linear() if kind == "cosine" else None
    terms = patch_entropy_contrast(
        image, confidence, drawn, similarity=kind, normalizer="paper", featurizer=featurizer, bandwidth=0.3
    )
    seen = [(k, sign, gray_values(values.view(1, 3, -1))) for k, sign, values in patches_of(image, confidence, drawn)]
    intra = 0.0
    for k in range(2):
        positives, negatives = (
            [g @ weight if featurizer else g for c, s, g in seen if (c, s) == (k, sign)] for sign in (True, False)
        )
        for r in positives:
            unlike = sum(patch_similarity(r, n, kind, bandwidth=0.3).exp() for n in negatives)
            alike = sum(patch_similarity(r, p, kind, bandwidth=0.3) for p in positives)
            intra = intra + (len(positives) * unlike.log() - alike).sum() / len(positives) ** 2
    agree(terms.intra, intra, confidence)


def test_the_cosine_asks_for_a_featurizer(maps, drawn):
    with pytest.raises(ValueError, match="no featurizer"):
        patch_entropy_contrast(*maps, drawn, similarity="cosine")
