"""A GAN that trains in minutes, to compare diffusion with: R3GAN (Huang et al. 2024, arXiv 2501.05441)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from sfumato.core import Noise
from sfumato.data import Source
from sfumato.measure.rival.loss import gradient_penalty, relativistic
from sfumato.measure.rival.nets import Discriminator, Generator, fitted
from sfumato.measure.rival.recipe import GanRecipe
from sfumato.measure.rival.trainer import RivalTrainer
from sfumato.train import Budget, Setting


def gan_nets(recipe: GanRecipe, source: Source, parameters: int, patch: int) -> tuple[Generator, Discriminator]:
    """Untrained networks of about `parameters` weights each, drawn from `recipe.seed` without the global generator."""
    shape, shares = recipe.shape(source, patch)
    shapes = [fitted(shape, shares, parameters, build) for build in (Generator, Discriminator)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Generator(shapes[0]), Discriminator(shapes[1])


class GanTrainer(RivalTrainer):
    """Generator and discriminator of one run: relativistic pairing loss, R1 and R2, nothing else.

    Per step one batch of real and one of generated pictures: the discriminator is updated, then the generator by the same
    pictures. Figures: both losses, `gap` (mean logit of real minus generated pictures), the norms of both gradients, the
    penalty.
    """

    losses = ("d_loss", "g_loss")

    def __init__(
        self,
        recipe: GanRecipe,
        source: Source,
        budget: Budget,
        setting: Setting,
        parameters: int,
        patch: int = 1,
    ) -> None:
        generator, discriminator = gan_nets(recipe, source, parameters, patch)
        self.discriminator = discriminator
        super().__init__(recipe, source, budget, setting, {"generator": generator, "discriminator": discriminator})

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        r = self.recipe
        return [
            torch.optim.Adam(net.parameters(), lr=rate, betas=(0.0, r.beta2), fused=True)
            for net, rate in ((self.generator, r.rate), (self.discriminator, r.rate_d))
        ]

    @property
    def gamma(self) -> float:
        """Weight of the penalties now."""
        r = self.recipe
        return r.gamma_end + (r.gamma - r.gamma_end) * 0.5 * (1 + math.cos(math.pi * self.share))

    def _update(self, x: Tensor, noise: Noise) -> dict[str, float]:
        for_g, for_d = self.optimisers
        with self.autocast():
            made = self.generator(self.latent(noise.at(1)))
        made = self.setting.lay(made.float())
        both = self.setting.lay(torch.cat([x, made.detach()]))
        with self.autocast():
            real, fake = self.discriminator(both).float().chunk(2)
        d_loss = relativistic(real, fake)
        d_loss.backward()
        figures = {"d_loss": d_loss.item(), "gap": (real - fake).mean().item()}
        if self.step % self.recipe.every == 0:
            # gamma / 2 (R1 + R2) is gamma times the mean over both halves
            penalty = gradient_penalty(self.discriminator, both)
            (self.gamma * self.recipe.every * penalty).backward()
            figures["penalty"] = penalty.item()
        figures["d_gradient"] = _norm(self.discriminator)
        for_d.step()
        self.discriminator.requires_grad_(False)
        with self.autocast():
            with torch.no_grad():
                real = self.discriminator(x).float()
            g_loss = relativistic(self.discriminator(made).float(), real)
        g_loss.backward()
        self.discriminator.requires_grad_(True)
        figures |= {"g_loss": g_loss.item(), "g_gradient": _norm(self.generator)}
        for_g.step()
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        return figures


def _norm(net: nn.Module) -> float:
    return get_total_norm([p.grad for p in net.parameters() if p.grad is not None]).item()
