"""From noise to data: grids of times, solvers, and the one loop that joins them; exact likelihood by the same ODE."""

from sfumato.reverse.adaptive import AdaptiveODE
from sfumato.reverse.calibrate import calibrate
from sfumato.reverse.catalogue import SOLVERS, check, pick_solver, suits
from sfumato.reverse.grids import (
    DDPM,
    GRIDS,
    FromData,
    Grid,
    Karras,
    LogSNR,
    UpAndDown,
    cosine,
    flow,
    pick_grid,
    uniform,
)
from sfumato.reverse.likelihood import bits_per_dimension, log_likelihood
from sfumato.reverse.loop import PRIOR, Step, sample, walk
from sfumato.reverse.multistep import IPNDM4, DPMpp2M, UniPC
from sfumato.reverse.onestep import DDIM, Ancestral, Euler, EulerMaruyama, Heun, PredictorCorrector, Renoise
from sfumato.reverse.solver import Solver
from sfumato.reverse.unmask import Unmask

__all__ = [
    "DDIM",
    "DDPM",
    "GRIDS",
    "IPNDM4",
    "PRIOR",
    "SOLVERS",
    "AdaptiveODE",
    "Ancestral",
    "DPMpp2M",
    "Euler",
    "EulerMaruyama",
    "FromData",
    "Grid",
    "Heun",
    "Karras",
    "LogSNR",
    "PredictorCorrector",
    "Renoise",
    "Solver",
    "Step",
    "UniPC",
    "Unmask",
    "UpAndDown",
    "bits_per_dimension",
    "calibrate",
    "check",
    "cosine",
    "flow",
    "log_likelihood",
    "pick_grid",
    "pick_solver",
    "sample",
    "suits",
    "uniform",
    "walk",
]
