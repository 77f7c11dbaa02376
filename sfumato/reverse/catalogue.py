"""The solvers by name, and which of them suit a process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sfumato.core import Process, SfumatoError
from sfumato.reverse.adaptive import AdaptiveODE
from sfumato.reverse.multistep import IPNDM4, DPMpp2M, UniPC
from sfumato.reverse.onestep import DDIM, Ancestral, Euler, EulerMaruyama, Heun, PredictorCorrector, Renoise
from sfumato.reverse.solver import Solver
from sfumato.reverse.unmask import Unmask

SOLVERS: dict[str, Callable[[], Solver]] = {
    "ddpm": Ancestral,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "dpmpp2m": DPMpp2M,
    "ipndm4": IPNDM4,
    "unipc": UniPC,
    "unipc3": partial(UniPC, beliefs=3),
    "euler-maruyama": EulerMaruyama,
    "predictor-corrector": PredictorCorrector,
    "adaptive": AdaptiveODE,
    "consistency": Renoise,
    "unmask": Unmask,
    "unmask-random": partial(Unmask, by="random"),
}


def pick_solver(name: str) -> Solver:
    """The solver of this name with its defaults; SfumatoError lists the known ones."""
    if name not in SOLVERS:
        raise SfumatoError(f"unknown solver {name!r}; known: {', '.join(SOLVERS)}")
    return SOLVERS[name]()


def suits(solver: Solver, process: Process) -> bool:
    """Whether the solver's `needs` meet the process."""
    return {"any": True, "linear": process.linear, "masked": hasattr(process, "mask")}[solver.needs]


def check(solver: Solver, process: Process) -> None:
    """Raises SfumatoError naming the solvers that work when this one does not suit the process."""
    if not suits(solver, process):
        works = ", ".join(name for name, make in SOLVERS.items() if suits(make(), process))
        raise SfumatoError(
            f"{type(solver).__name__} needs a {solver.needs} process, not {type(process).__name__}; use {works}"
        )
