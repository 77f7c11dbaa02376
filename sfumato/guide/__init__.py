"""Guides change a belief without the sampler knowing: (denoiser) -> denoiser."""

from sfumato.guide.guidance import autoguide, cfg, dynamic_threshold
from sfumato.guide.observation import Downsample, Mask, observe, observe_linear
from sfumato.guide.wrap import Guide, Guided, bind, with_guides

__all__ = [
    "Downsample",
    "Guide",
    "Guided",
    "Mask",
    "autoguide",
    "bind",
    "cfg",
    "dynamic_threshold",
    "observe",
    "observe_linear",
    "with_guides",
]
