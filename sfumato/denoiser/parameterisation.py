"""What the network predicts, as two numbers: y = a x0 + b eps.

With x_t = alpha x0 + sigma eps it follows that x0 = (b x_t - sigma y) / (alpha b - sigma a). Plain MSE on y equals an
x0-MSE weighted by ((alpha b - sigma a) / sigma)^2, so the space of the loss is a free choice beside the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sfumato.core import SfumatoError, Time, expand


@dataclass(frozen=True)
class Parameterisation:
    """Base: a subclass gives `coefficients`."""

    def coefficients(self, alpha: Time, sigma: Time) -> tuple[Time, Time]:
        """(a, b) of y = a x0 + b eps."""
        raise NotImplementedError

    def x0(self, x_t: Tensor, y: Tensor, alpha: Time, sigma: Time) -> Tensor:
        """The data behind x_t when the network says y."""
        a, b = self.coefficients(alpha, sigma)
        below = alpha * b - sigma * a
        if isinstance(below, float) and below == 0.0:
            raise SfumatoError(
                f"{type(self).__name__} cannot tell x0 where alpha = {alpha:g}: start the grid at a smaller t, "
                "or predict x0, v or flow"
            )
        return (expand(b, x_t) * x_t - expand(sigma, x_t) * y) / expand(below, x_t)

    def target(self, x0: Tensor, eps: Tensor, alpha: Time, sigma: Time) -> Tensor:
        """The y that the network should say."""
        a, b = self.coefficients(alpha, sigma)
        return expand(a, x0) * x0 + expand(b, x0) * eps

    def x0_weight(self, alpha: Time, sigma: Time) -> Time:
        """The weight on the squared error of x0 that makes it the squared error of y."""
        a, b = self.coefficients(alpha, sigma)
        return ((alpha * b - sigma * a) / sigma) ** 2


@dataclass(frozen=True)
class X0(Parameterisation):
    """Predict the data."""

    def coefficients(self, alpha: Time, sigma: Time) -> tuple[Time, Time]:
        return 1.0, 0.0


@dataclass(frozen=True)
class Eps(Parameterisation):
    """Predict the noise (Ho et al. 2020)."""

    def coefficients(self, alpha: Time, sigma: Time) -> tuple[Time, Time]:
        return 0.0, 1.0


@dataclass(frozen=True)
class V(Parameterisation):
    """Predict v = alpha eps - sigma x0 (Salimans & Ho 2022)."""

    def coefficients(self, alpha: Time, sigma: Time) -> tuple[Time, Time]:
        return -sigma, alpha


@dataclass(frozen=True)
class Flow(Parameterisation):
    """Predict eps - x0, the velocity of rectified flow (Liu et al. 2022)."""

    def coefficients(self, alpha: Time, sigma: Time) -> tuple[Time, Time]:
        return -1.0, 1.0


@dataclass(frozen=True)
class EDMTarget(Parameterisation):
    """Predict the unit-variance residual of the best linear denoiser (Karras et al. 2022, eq. 7, for any alpha).

    x0 = c_skip x_t + c_out y with c_skip = alpha d^2 / (alpha^2 d^2 + sigma^2), c_out = sigma d / sqrt(same), d = `sigma_data`.
    """

    sigma_data: float = 0.5

    def coefficients(self, alpha: Time, sigma: Time) -> tuple[Time, Time]:
        # (1 - c_skip alpha) / c_out and -c_skip sigma / c_out, multiplied out: finite and exact down to sigma = 0
        d = self.sigma_data
        root = (alpha**2 * d**2 + sigma**2) ** 0.5
        return sigma / (d * root), -alpha * d / root
