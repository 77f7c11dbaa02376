"""How clean data becomes noise: Gaussian processes with their SDEs, and categorical ones for tiles."""

from sfumato.forward.categorical import Absorbing, CategoricalPosterior, Uniform, gumbel
from sfumato.forward.gaussian import (
    EDM,
    VE,
    GaussianPosterior,
    GaussianProcess,
    RectifiedFlow,
    SubVP,
    VPCosine,
    VPLinear,
)

__all__ = [
    "EDM",
    "VE",
    "Absorbing",
    "CategoricalPosterior",
    "GaussianPosterior",
    "GaussianProcess",
    "RectifiedFlow",
    "SubVP",
    "Uniform",
    "VPCosine",
    "VPLinear",
    "gumbel",
]
