"""What diffusion is compared with: a good small GAN, and a plain VAE, on the same data path and with the same checkpoints."""

from sfumato.measure.rival.gan import GanTrainer
from sfumato.measure.rival.loss import gradient_penalty, relativistic
from sfumato.measure.rival.nets import Discriminator, Generator, Shape, fitted
from sfumato.measure.rival.recipe import GanRecipe, VaeRecipe
from sfumato.measure.rival.trainer import RivalTrainer, fastest
from sfumato.measure.rival.vae import VaeTrainer

__all__ = [
    "Discriminator",
    "GanRecipe",
    "GanTrainer",
    "Generator",
    "RivalTrainer",
    "Shape",
    "VaeRecipe",
    "VaeTrainer",
    "fastest",
    "fitted",
    "gradient_penalty",
    "relativistic",
]
