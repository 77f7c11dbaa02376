"""A variational autoencoder from the rival's blocks (Kingma & Welling 2014, arXiv 1312.6114): the plain third column."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.core import Noise
from sfumato.data import Source
from sfumato.measure.rival.nets import Discriminator, Generator, fitted
from sfumato.measure.rival.recipe import VaeRecipe
from sfumato.measure.rival.trainer import RivalTrainer
from sfumato.train import Budget, Setting


def kl_to_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) summed over the last axis: [B]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


class VaeTrainer(RivalTrainer):
    """Encoder and generator of one run; the loss is the negative evidence bound per pixel, in nats up to a constant.

    The variance of the pictures round what is generated is the best fit of the batch, D / 2 log(mean squared error)
    (Rybkin et al. 2021, arXiv 2006.13202): no weight to tune.
    """

    losses = ("loss",)

    def __init__(
        self, recipe: VaeRecipe, source: Source, budget: Budget, setting: Setting, parameters: int, patch: int = 1
    ) -> None:
        shape, shares = recipe.shape(source, patch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            generator = Generator(fitted(shape, shares, parameters, Generator))
            encoder = Discriminator(fitted(shape, shares, parameters, Discriminator), 2 * recipe.z)
        self.encoder = encoder
        super().__init__(recipe, source, budget, setting, {"generator": generator, "encoder": encoder})

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.AdamW(self.weights.values(), lr=self.recipe.rate, betas=(0.9, 0.99), fused=True)]

    def _update(self, x: Tensor, noise: Noise) -> dict[str, float]:
        with self.autocast():
            mean, log_variance = self.encoder.answers(x).float().chunk(2, 1)
        log_variance = log_variance.clamp(-10, 10)
        z = mean + (log_variance / 2).exp() * self.latent(noise.at(1))
        with self.autocast():
            made = self.generator(z)
        error = (made.float() - x).square().mean()
        pixels = x[0].numel()
        kl = kl_to_normal(mean, log_variance).mean() / pixels
        loss = 0.5 * error.clamp_min(1e-6).log() + self.recipe.beta * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return {"loss": loss.item(), "error": error.item(), "kl": kl.item()}
