"""Networks, condition encoders, and what joins them to a process."""

from sfumato.denoiser.conditions import SlotSpec
from sfumato.denoiser.denoiser import CategoricalDenoiser, Denoiser, noise_level
from sfumato.denoiser.parameterisation import X0, EDMTarget, Eps, Flow, Parameterisation, V
from sfumato.denoiser.transformer import Transformer, TransformerConfig
from sfumato.denoiser.unet import UNet, UNetConfig

__all__ = [
    "X0",
    "CategoricalDenoiser",
    "Denoiser",
    "EDMTarget",
    "Eps",
    "Flow",
    "Parameterisation",
    "SlotSpec",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "V",
    "noise_level",
]
