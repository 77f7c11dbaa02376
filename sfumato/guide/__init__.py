"""Guides change a belief without the sampler knowing: (denoiser) -> denoiser."""

from sfumato.guide.guidance import autoguide, cfg, dynamic_threshold
from sfumato.guide.observation import Downsample, Mask, Measurement, observe, observe_linear, observe_noisy
from sfumato.guide.through import observe_through, observe_told
from sfumato.guide.windows import windows
from sfumato.guide.wrap import Guide, Guided, bind, with_guides

__all__ = [
    "Downsample",
    "Guide",
    "Guided",
    "Mask",
    "Measurement",
    "autoguide",
    "bind",
    "cfg",
    "dynamic_threshold",
    "observe",
    "observe_linear",
    "observe_noisy",
    "observe_through",
    "observe_told",
    "windows",
    "with_guides",
]
