"""What people see while they wait: plain lines and one progress line, on stderr."""

from __future__ import annotations

import sys
import time


def say(text: str) -> None:
    """One line for the user."""
    print(text, file=sys.stderr, flush=True)


class Line:
    """A progress line with the time left: redrawn on a terminal, a new line every ten seconds elsewhere."""

    def __init__(self, label: str) -> None:
        self.label, self.started, self.drawn = label, time.monotonic(), 0.0
        self.first: tuple[float, float] | None = None
        self.terminal = sys.stderr.isatty()

    def show(self, share: float, text: str) -> None:
        """`share` of the work is done, 0 ... 1."""
        now = time.monotonic()
        if self.first is None:
            self.first = (now, share)
        if now - self.drawn < (0.2 if self.terminal else 10.0):
            return
        self.drawn = now
        spent, advanced = now - self.first[0], share - self.first[1]
        left = f"{_clock(spent / advanced * (1 - share))} left" if advanced > 0 else "..."
        bar = "█" * int(share * 20) + "░" * (20 - int(share * 20))
        message = f"{self.label} {bar} {share:4.0%} {left}  {text}"
        print(
            f"\r{message}\033[K" if self.terminal else message,
            end="" if self.terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        if self.terminal and self.drawn:
            print(file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
