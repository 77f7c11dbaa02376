"""The losses on fixed pairs that the log holds, and the averaged weights they are taken with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training import small_source, tiny_trainer

from sfumato.train.run import Run, averaged_weights, fit, pair_losses, validation_losses

SOURCE = small_source()


def test_validation_pairs_are_fixed_and_cover_the_levels() -> None:
    trainer = tiny_trainer(5, source=SOURCE)
    before, u = validation_losses(trainer)
    again, _ = validation_losses(trainer)
    assert torch.equal(before, again) and len(before) >= 64
    assert torch.histc(u, 8, 0, 1).min() >= len(u) / 16
    other = tiny_trainer(5, source=SOURCE, seed=9)
    for name, p in other.weights.items():
        p.data.copy_(trainer.weights[name])
    other.ema.load(trainer.ema.state())
    assert torch.equal(validation_losses(other)[0], before)  # the pairs do not depend on the run's seed


def test_pictures_learned_by_heart_lose_less_than_held_out_ones() -> None:
    trainer = tiny_trainer(400, source=small_source(12))
    rows = trainer.source.train_index
    before = pair_losses(trainer, rows)[0].mean() / validation_losses(trainer)[0].mean()
    for _ in trainer.steps():
        pass
    after = pair_losses(trainer, rows)[0].mean() / validation_losses(trainer)[0].mean()
    assert after < 0.8 * before


def test_the_log_holds_the_loss_of_each_quarter_of_the_noise(tmp_path: Path) -> None:
    trainer, folder = tiny_trainer(20), Run(tmp_path / "run")
    folder.begin(trainer.recipe, trainer.source, trainer.budget, trainer.setting)
    for _ in fit(folder, trainer, reports=2):
        pass
    last = folder.rows()[-1]
    losses, u = validation_losses(trainer)
    assert last["validation_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    quarters = [losses[(u >= k / 4) & (u < (k + 1) / 4)].mean().item() for k in range(4)]
    assert last["validation_levels"] == pytest.approx(quarters, rel=1e-5)
    times = trainer.recipe.times.quantile(u.sort().values, trainer.recipe.process)
    assert bool((times.diff() >= 0).all())  # the first quarter has the least noise


def test_previews_and_validation_use_the_average_that_is_delivered() -> None:
    trainer = tiny_trainer(8)
    for _ in trainer.steps():
        pass
    for k, width in enumerate(trainer.ema.widths):
        trainer.ema.averages[k] = {name: torch.full_like(v, width) for name, v in trainer.ema.averages[k].items()}
    with averaged_weights(trainer) as denoiser:
        assert all(bool((p == trainer.recipe.ema.width).all()) for p in denoiser.parameters())


def test_averaged_weights_are_given_back() -> None:
    trainer = tiny_trainer(20, source=SOURCE)
    for _ in trainer.steps():
        pass
    before = {n: p.detach().clone() for n, p in trainer.weights.items()}
    with pytest.raises(KeyboardInterrupt), averaged_weights(trainer, 0.1) as denoiser:
        assert not denoiser.training
        for n, p in denoiser.named_parameters():
            assert torch.equal(p, trainer.ema.averages[1][n])
        raise KeyboardInterrupt
    assert trainer.denoiser.training and all(torch.equal(p, before[n]) for n, p in trainer.weights.items())
