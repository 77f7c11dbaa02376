"""Losses, time samplers, the training loop, averages, checkpoints and exact resume."""

from sfumato.train import preparation
from sfumato.train.card import write_card
from sfumato.train.ema import EMAConfig, PowerEMA, combine
from sfumato.train.finite import Diverged
from sfumato.train.loop import Budget, Progress, Trainer, load_weights
from sfumato.train.machine import Setting, bf16_pays, keep_large_blocks, probe
from sfumato.train.objective import Consistency, CrossEntropy, MinSNR, Objective, SquaredError, Taught
from sfumato.train.plan import Plan, make_plan
from sfumato.train.recipe import CONDITIONS, Optimiser, Recipe
from sfumato.train.recipes import RECIPES, pick_recipe
from sfumato.train.run import Report, Run, averaged_weights, fit, keep_average, restore, resume, validation_losses
from sfumato.train.start import continued, take_over
from sfumato.train.times import LogNormalTimes, UniformTimes

__all__ = [
    "CONDITIONS",
    "RECIPES",
    "Budget",
    "Consistency",
    "CrossEntropy",
    "Diverged",
    "EMAConfig",
    "LogNormalTimes",
    "MinSNR",
    "Objective",
    "Optimiser",
    "Plan",
    "PowerEMA",
    "Progress",
    "Recipe",
    "Report",
    "Run",
    "Setting",
    "SquaredError",
    "Taught",
    "Trainer",
    "UniformTimes",
    "averaged_weights",
    "bf16_pays",
    "combine",
    "continued",
    "fit",
    "keep_average",
    "keep_large_blocks",
    "load_weights",
    "make_plan",
    "pick_recipe",
    "preparation",
    "probe",
    "restore",
    "resume",
    "take_over",
    "validation_losses",
    "write_card",
]
