"""What is said before the first step: numbers that agree with each other and with the machine."""

from __future__ import annotations

import os

import pytest
import torch
from training import TINY, small_source, tiny_recipe, tiny_trainer

from sfumato.core import Cond, SfumatoError
from sfumato.denoiser import TransformerConfig, UNetConfig
from sfumato.train import Budget, Setting, keep_large_blocks, make_plan, probe
from sfumato.train import plan as plans
from sfumato.train.machine import available_memory, saved_bytes, seconds_of

SOURCE = small_source()
WIDE = UNetConfig(patch=2, widths=(64, 128), blocks=(1, 1), embedding=128)


@pytest.fixture
def quick(monkeypatch):
    """The probe without its second of measuring."""
    real = plans.probe
    monkeypatch.setattr(plans, "probe", lambda d, x, c: real(d, x, c, 0.01))
    return monkeypatch


def planned(budget: Budget, **changes):
    recipe = tiny_recipe(SOURCE, **changes)
    return make_plan(recipe.build(), recipe, SOURCE, budget)


def test_numbers_agree(quick) -> None:
    plan, recipe = planned(Budget(steps=50))
    net = recipe.build().net
    by_hand = sum(p.numel() for p in net.parameters())
    # weights, gradients, 2 averages; the moments as the optimisers made them
    trainer = tiny_trainer(2)
    list(trainer.steps())
    moments = sum(v.numel() for k, v in trainer.state()[0]["optimiser"].items() if not k.endswith("/step"))
    assert plan.parameters == by_hand and plan.state_bytes == 4 * (4 * by_hand + moments)
    assert plan.data_bytes == 64 * 8 * 8
    assert plan.steps == 50 and plan.epochs == pytest.approx(50 * 8 / len(SOURCE.train_index))
    assert str(plan.setting) in plan.probed and plan.probed[str(plan.setting)] == min(plan.probed.values())
    assert plan.seconds_per_step >= min(plan.probed.values())
    text = "\n".join(plan.lines())
    assert str(plan.setting) in text and "50 steps" in text and len(plan.lines()) == 3


def test_a_time_budget_becomes_a_number_of_steps(quick) -> None:
    plan, _ = planned(Budget(seconds=60.0))
    assert plan.steps == pytest.approx(60.0 / plan.seconds_per_step, rel=0.01, abs=1)


@pytest.mark.parametrize(
    "net", [TINY, WIDE, TransformerConfig(patch=2, width=64, depth=2, head=16)], ids=["tiny", "wide", "transformer"]
)
def test_activations_grow_linearly_with_the_batch(net) -> None:
    denoiser = tiny_recipe(SOURCE, net=net).build()
    rows = SOURCE.train_index[:16]
    batch = SOURCE.batch(rows)
    sizes = {n: saved_bytes(denoiser, batch.x0[:n], batch.cond.take(slice(0, n))) for n in (1, 2, 4, 8, 16)}
    for n, size in sizes.items():
        assert size == pytest.approx(n * sizes[1], rel=0.05), sizes
    weights = sum(p.numel() * 4 for p in denoiser.parameters())
    assert net is not WIDE or sizes[1] < weights  # so they are not counted once per picture


def test_activations_are_those_that_autograd_keeps() -> None:
    """One convolution: its input is kept, its weight is not counted."""
    from torch import nn

    from sfumato.denoiser import Denoiser, Flow
    from sfumato.forward import RectifiedFlow

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x, level, cond):
            return self.layer(x)

    size = saved_bytes(Denoiser(One(), RectifiedFlow(), Flow()), torch.zeros(4, 1, 32, 32), Cond())
    plane = 4 * 32 * 32 * 4
    assert 2 * plane <= size <= 4 * plane  # the convolution's input, the square's, at most one more of the arithmetic


def test_too_little_memory_leads_to_micro_batches(quick) -> None:
    roomy, recipe = planned(Budget(steps=5), batch=32)
    assert roomy.accumulate == recipe.accumulate == 1
    one = roomy.activation_bytes // 32
    quick.setattr(plans, "available_memory", lambda: int((roomy.state_bytes + 9 * one) / 0.8))
    plan, recipe = planned(Budget(steps=5), batch=32)
    assert plan.accumulate == recipe.accumulate == 4 and recipe.batch == 32
    assert plan.state_bytes + plan.activation_bytes <= 0.8 * plan.available_bytes
    assert plan.activation_bytes == pytest.approx(8 * one, rel=0.01)
    assert "in 4 micro-batches" in plan.lines()[1] and "in 4 micro-batches" not in roomy.lines()[1]


def test_memory_for_nothing_is_said_in_one_line(quick) -> None:
    quick.setattr(plans, "available_memory", lambda: 1000)
    with pytest.raises(SfumatoError, match="use a smaller network or --size") as caught:
        planned(Budget(steps=5))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"conditions": ()}, {"batch": 96}, {"batch": 7}], ids=str)
def test_plans_for_sources_that_hold_more_or_less_than_a_batch_shows(quick, changes) -> None:
    plan, recipe = planned(Budget(steps=3), **changes)
    assert plan.steps == 3 and recipe.batch == changes.get("batch", 8)


def test_the_plan_leaves_the_untrained_weights_as_they_were(quick) -> None:
    recipe = tiny_recipe(SOURCE)
    denoiser, fresh = recipe.build(), recipe.build()
    make_plan(denoiser, recipe, SOURCE, Budget(steps=3))
    assert all(
        torch.equal(a, b) and a.grad is None for a, b in zip(denoiser.parameters(), fresh.parameters(), strict=True)
    )


def test_the_probe_leaves_the_network_in_the_setting_it_reports() -> None:
    recipe = tiny_recipe(SOURCE)
    denoiser = recipe.build()
    batch = recipe.look(SOURCE, SOURCE.train_index[:4])
    setting, seconds = probe(denoiser, batch.x0, batch.cond, 0.02)
    assert denoiser.precision == setting.precision and len(seconds) == 4 and min(seconds.values()) > 0
    stem = denoiser.net.stem.weight
    assert stem.is_contiguous(memory_format=torch.channels_last if setting.channels_last else torch.contiguous_format)


def test_settings_say_what_they_are() -> None:
    assert str(Setting(None, False)) == "float32, contiguous"
    assert str(Setting(torch.bfloat16, True)) == "bf16 autocast, channels_last"
    x = torch.zeros(2, 3, 4, 4)
    assert Setting(None, True).lay(x).is_contiguous(memory_format=torch.channels_last)
    assert Setting(None, True).lay(x[0]).ndim == 3 and Setting(None, False).lay(x) is x


def test_seconds_of_is_a_median_after_a_warm_up(monkeypatch) -> None:
    from sfumato.train import machine

    now, costs = [0.0], iter([100.0, 1.0, 3.0, 2.0, 50.0, 2.5] + [2.0] * 50)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += next(costs)

    assert seconds_of(work, 55.0) == pytest.approx(2.5)


def test_memory_and_allocator_answers_are_plausible() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory() <= physical
    assert isinstance(keep_large_blocks(), bool)
