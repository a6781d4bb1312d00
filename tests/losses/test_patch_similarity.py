"""Features and gray values of two patches, compared as the appendix of the paper and its code do."""

import pytest
import torch

from napari_semiseg.losses.patch_similarity import gray_values, patch_similarity


@pytest.fixture
def patches():
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.rand(n, 7, generator=generator, dtype=torch.float64).requires_grad_() for n in (2, 3))


def cosine_loop(r, p):
    dot = sum(a * b for a, b in zip(r, p, strict=True))
    return dot / (sum(a * a for a in r).sqrt() * sum(b * b for b in p).sqrt())


def divergence_loop(r, p):
    return -sum(b * (b.log() - a.log()) for a, b in zip(r, p, strict=True)) / len(r)


def information_loop(r, p, bandwidth=0.9):
    levels = [k / 24 for k in range(25)]

    def near(value, level):
        return torch.exp(-((value - level) ** 2) / (2 * bandwidth**2))

    joint = [[sum(near(x, a) * near(y, b) for x, y in zip(r, p, strict=True)) for b in levels] for a in levels]
    total = sum(sum(row) for row in joint)
    joint = [[value / total for value in row] for row in joint]
    rows, columns = [sum(row) for row in joint], [sum(column) for column in zip(*joint, strict=True)]
    return sum(joint[a][b] * torch.log2(joint[a][b] / (rows[a] * columns[b])) for a in range(25) for b in range(25))


@pytest.mark.parametrize(("kind", "pair"), [("cosine", cosine_loop), ("kl", divergence_loop)])
def test_a_similarity_is_that_of_its_equation(agree, patches, kind, pair):
    anchors, others = patches
    weights = torch.rand(2, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = sum(weights[i, j] * pair(anchors[i], others[j]) for i in range(2) for j in range(3))
    agree((weights * patch_similarity(anchors, others, kind)).sum(), expected, anchors, others)


@pytest.mark.parametrize("bandwidth", [0.9, 0.1])
def test_the_mutual_information_is_that_of_its_equation(agree, patches, bandwidth):
    anchors, others = patches[0][:1], patches[1][:2]
    expected = sum((1 + j) * information_loop(anchors[0], others[j], bandwidth) for j in range(2))
    found = patch_similarity(anchors, others, "mi", bandwidth=bandwidth)
    assert found.shape == (1, 2)
    # At the code's bandwidth patches share about 1e-5 bits: in the equation as it is written, which the loops follow, a
    # sum of logarithms near 10 that cancel, so that double precision leaves the loops some eight digits.
    agree((found * torch.tensor([[1.0, 2.0]])).sum(), expected, *patches, relative=1e-7 if bandwidth > 0.5 else 1e-9)


def test_single_precision_tells_how_little_patches_share_at_the_bandwidth_of_the_released_code():
    generator = torch.Generator().manual_seed(6)
    anchors = 0.2 + 0.5 * torch.rand(3, 2_500, generator=generator, dtype=torch.float64)
    others = 0.5 * anchors.flip(0) + 0.3 * torch.rand(3, 2_500, generator=generator, dtype=torch.float64)
    shared = patch_similarity(anchors, others, "mi", bandwidth=0.9)
    in_single_precision = patch_similarity(anchors.float(), others.float(), "mi", bandwidth=0.9)

    assert shared.max() < 1e-5
    torch.testing.assert_close(in_single_precision.double(), shared, rtol=0.01, atol=1e-12)


def test_a_patch_knows_everything_of_itself_and_nothing_of_an_even_one():
    generator = torch.Generator().manual_seed(5)
    patch = torch.rand(1, 400, generator=generator, dtype=torch.float64)
    inverted, even, shuffled = 1 - patch, torch.full_like(patch, 0.5), patch[:, torch.randperm(400)]
    found = patch_similarity(patch, torch.cat([patch, inverted, shuffled, even]), "mi", bandwidth=0.05)[0].tolist()
    assert found[0] == pytest.approx(found[1], rel=1e-9)  # whatever can be told from the other
    assert found[0] > 1.5
    assert found[2] < 0.5 * found[0]
    assert found[3] == pytest.approx(0.0, abs=1e-9)


def test_gray_values_weigh_colors_as_the_eye_does():
    assert gray_values(torch.eye(3)[None]).tolist()[0] == pytest.approx([0.2989, 0.587, 0.114])


@pytest.mark.parametrize("kind", ["cosine", "kl", "mi"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_patches_are_compared_without_nan(kind, value):
    values = torch.full((2, 9), value, requires_grad=True)
    found = patch_similarity(values, values, kind)
    found.sum().backward()
    assert bool(found.isfinite().all())
    assert bool(values.grad.isfinite().all())
