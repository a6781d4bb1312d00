"""A teacher that is the running average of its student."""

from __future__ import annotations

from torch import Tensor, nn, no_grad
from torch.optim.swa_utils import get_ema_multi_avg_fn


def ema_decay(step: int, alpha: float) -> float:
    r"""Return the decay at a step, with the warm-up rule.

    .. math:: \alpha_i = \min(1 - 1 / (i + 1), \alpha)

    Step 0 copies the student and step 1 averages half and half, so that the teacher does not keep what it was
    initialized with.

    Parameters
    ----------
    step : int
        i, counted from 0.
    alpha : float, in [0, 1]
        The decay that is approached: 0.999 is reached at step 999.

    Returns
    -------
    float, in [0, 1)

    Examples
    --------
    >>> [ema_decay(step, 0.999) for step in (0, 1, 3, 998, 999, 5_000)]
    [0.0, 0.5, 0.75, 0.998998998998999, 0.999, 0.999]
    """
    return min(1 - 1 / (step + 1), alpha)


@no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, alpha: float, *, buffers: bool = True) -> None:
    r"""Move the teacher toward the student, in place.

    .. math:: \theta_t \leftarrow \alpha \theta_t + (1 - \alpha) \theta_s

    Parameters and floating-point buffers (the running statistics of batch normalization) are averaged; integer buffers
    (numbers of batches, chosen channels) are copied. No gradient is recorded.

    Parameters
    ----------
    teacher, student : nn.Module
        Of the same architecture. Only the teacher changes.
    alpha : float, in [0, 1]
        1 leaves the teacher as it is, 0 copies the student.
    buffers : bool
        Without it parameters alone are averaged, and buffers stay as they are: for a teacher that runs in train mode
        and gathers batch statistics of its own, as those of SSL4MIS and TorchSemiSeg do.

    Raises
    ------
    ValueError
        If the two do not hold tensors of the same names.

    References
    ----------
    A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017, Eq. 2; averaging buffers follows
    UniMatch V2 and CutMix-Seg.
    """
    target, source = _tensors(teacher, buffers), _tensors(student, buffers)
    if target.keys() != source.keys():
        raise ValueError("The teacher and its student do not hold the same tensors.")
    averaged = [name for name, tensor in target.items() if tensor.is_floating_point()]
    if averaged:
        average = get_ema_multi_avg_fn(alpha)  # type: ignore[no-untyped-call]
        average([target[name] for name in averaged], [source[name] for name in averaged], None)
    for name in target.keys() - set(averaged):
        target[name].copy_(source[name])


def _tensors(module: nn.Module, buffers: bool) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **(dict(module.named_buffers()) if buffers else {})}
