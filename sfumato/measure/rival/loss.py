"""The losses of R3GAN: relativistic pairing, and zero-centred gradient penalties on real and on generated pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """mean softplus(worse - better): small when every logit of `better` [B] lies above its partner in `worse` [B].

    The discriminator takes (real, generated), the generator (generated, real) (Jolicoeur-Martineau 2018, arXiv
    1807.00734).
    """
    return F.softplus(worse - better).mean()


def gradient_penalty(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """mean over the batch of |d net(x) / d x|^2, in float32, to be differentiated again: R1 on real pictures, R2 on
    generated ones (Mescheder et al. 2018, arXiv 1801.04406).

    x: [B, ...]; net: x -> [B].
    """
    x = x.detach().float().requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()
