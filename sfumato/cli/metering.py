"""The meter beside a training: when it reads, what it says, and when it asks to stop."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from torch import Tensor

from sfumato.cli.console import say
from sfumato.core import SfumatoError
from sfumato.data.ragged import square_x0
from sfumato.measure.meter import SEED, Meter, N, Reading, best, onset
from sfumato.tasks import Model, Request, by_shape
from sfumato.train import Progress, Run, Trainer, averaged_weights, keep_average

LEAST_SECONDS = 120.0  # of training: a shorter run is over before there is anything to see
STEPS = 10  # of sampling a reading's pictures


class Metering:
    """Readings of one run, kept in its folder; `stop` is True for a run that ends when copies begin."""

    def __init__(self, run: Run, trainer: Trainer, model: Model, stop: bool) -> None:
        self.run, self.trainer, self.model, self.stop = run, trainer, model, stop
        self.meter = Meter(trainer.source)
        self.readings = [Reading.from_json(row) for row in run.rows("meter")]
        self.told = ""

    def _draw(self) -> Tensor:
        request = Request(n=N, seed=SEED, steps=STEPS)
        if "sampling" in self.model.facts:  # a few-step model is looked at in its own steps
            request = replace(request, steps=None)
        with averaged_weights(self.trainer), torch.no_grad():
            drawn = by_shape(self.model, request)
        return torch.cat([square_x0(part.x0, self.meter.gallery.source.codec.height) for part in drawn])

    def look(self, progress: Progress) -> bool:
        """Take a reading where one is due; True when copies have begun and the run should end."""
        if not self.meter.due(progress.share, progress.seconds):
            return False
        reading = self.meter.read(self._draw, progress.step, progress.seconds, progress.images)
        self.readings.append(reading)
        with (self.run.path / "meter.jsonl").open("a") as file:
            file.write(json.dumps(reading.to_json()) + "\n")
        if best(self.readings) == reading:
            keep_average(self.run, self.trainer)
        self.told = f"KID {reading.kid.value:.3g}, copies {100 * reading.copies.value:.0f} %"
        return self.stop and onset(self.readings) is not None

    def choose(self) -> str:
        """Make the best average from before copies began the run's model; what is said of it."""
        chosen, begun = best(self.readings), onset(self.readings)
        last = self.readings[-1].copies
        why = (
            f"copies begin: stop. Since step {begun:,} more pictures are copies than chance explains (now about "
            f"{100 * last.value:.0f} %, {100 * last.low:.0f} to {100 * last.high:.0f}); the model is the average of step "
            f"{chosen.step:,}, KID {chosen.kid.value:.3g}"
        )
        self.run.choose(chosen.step, why)
        return why


def metering(run: Run, trainer: Trainer, model: Model, seconds: float, stop: bool) -> Metering | None:
    """The meter of a run that is planned to take so many seconds; None where it would see nothing."""
    if seconds < LEAST_SECONDS:
        return None
    try:
        return Metering(run, trainer, model, stop)
    except SfumatoError as error:
        say(f"no meter: {error}")
        return None
