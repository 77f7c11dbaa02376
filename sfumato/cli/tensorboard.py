"""sfumato tensorboard: the curves and previews of a run as TensorBoard reads them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.cli.console import say
from sfumato.cli.report import previews
from sfumato.core import SfumatoError
from sfumato.measure.plots import LEVELS
from sfumato.train import Run


def tensorboard(options: argparse.Namespace) -> dict[str, Any]:
    """Write every number of the log and every preview as events; returns what --json prints."""
    run = Run(Path(options.run))
    run.describe()  # an error of its own where this is no run folder
    folder = Path(options.to) if options.to else run.path / "tensorboard"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SfumatoError(f"{folder} holds something already: delete it, or name another folder with --to")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SfumatoError("this needs TensorBoard: pip install 'sfumato[tensorboard]'") from error
    rows, pictures = [*run.rows(), *run.rows("meter")], previews(run)
    with SummaryWriter(str(folder)) as writer:
        for row in rows:
            for name, value in _numbers(row).items():
                writer.add_scalar(name, value, row["step"])
        for step, picture in pictures:
            writer.add_image("previews", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
    say(f"{len(rows)} rows and {len(pictures)} previews; look with: tensorboard --logdir {folder}")
    return {"folder": str(folder), "rows": len(rows), "previews": len(pictures)}


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row of the log, by the names they get."""
    levels = zip(LEVELS, row.get("validation_levels", ()), strict=False)
    flat = {k: v for k, v in row.items() if k != "step" and isinstance(v, int | float)}
    return {**flat, **{f"validation_levels/{name}": value for name, value in levels}}
