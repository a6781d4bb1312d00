import pytest
import torch
import torch.nn.functional as F

from napari_semiseg.nn.reach import through_bilinear, through_convolution, union


def read_by(layer, length: int, output: int) -> tuple[int, int]:
    """First and last input index with weight in one output."""
    x = torch.zeros(1, 1, 1, length, dtype=torch.float64, requires_grad=True)
    layer(x)[0, 0, 0, output].backward()
    read = x.grad[0, 0, 0].nonzero().flatten()
    return int(read[0]), int(read[-1])


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 3)])
def test_a_convolution_reads_what_it_reads(stride, dilation):
    weight = torch.ones(1, 1, 1, 3, dtype=torch.float64)

    def layer(x):
        return F.conv2d(x, weight, stride=(1, stride), padding=(0, dilation), dilation=(1, dilation))

    for output in (5, 6, 7):
        assert read_by(layer, 32, output) == through_convolution((output, output), stride=stride, dilation=dilation)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bilinear_upsampling_reads_its_neighbors(scale):
    def layer(x):
        return F.interpolate(x, scale_factor=(1, scale), mode="bilinear", align_corners=False)

    for output in range(4 * scale, 6 * scale):
        assert read_by(layer, 16, output) == through_bilinear((output, output), scale)


def test_the_union_of_spans_holds_both():
    assert union((3, 5), (4, 9)) == (3, 9)
    assert union((-3, 5), (-4, 2)) == (-4, 5)
