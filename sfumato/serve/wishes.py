"""What the buttons and words of a chat ask of the queue: nothing here knows of any chat."""

from __future__ import annotations

import dataclasses
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.audit.declared import receipt_of
from sfumato.measure import grid_image
from sfumato.tasks.prompt import Line, parse
from sfumato.tasks.receipt import encoded

GRID, MOST = 4, 4  # pictures of a grid; prompts that one line may stand for in a chat
HOUR = 3600.0
SIDES = {"left": (0, 0, 0.5, 1), "right": (0.5, 0, 1, 1), "top": (0, 0, 1, 0.5), "bottom": (0, 0.5, 1, 1)}
PLACES = {**SIDES, "middle": (0.25, 0.25, 0.75, 0.75), "all": (0, 0, 1, 1)}
KEPT = ("steps", "guidance", "style", "negative")  # of a picture, when another is made from it
AGAIN = (*KEPT, "n", "stylize", "chaos", "revise", "strength", "mask", "sketch", "layout", "zoom", "scale")


class Limits:
    """How much one user may ask for: `at_once` jobs that wait or run, `per_hour` in an hour."""

    def __init__(self, at_once: int, per_hour: int, clock: Callable[[], float] = time.monotonic) -> None:
        if at_once < 1 or per_hour < 1:
            raise SfumatoError("--at-once and --per-hour are whole numbers from 1 on")
        self.at_once, self.per_hour, self.clock = at_once, per_hour, clock
        self.running: defaultdict[str, int] = defaultdict(int)
        self.begun: defaultdict[str, deque[float]] = defaultdict(deque)

    def take(self, user: str) -> None:
        """Count one job more; SfumatoError that says what to wait for."""
        begun, now = self.begun[user], self.clock()
        while begun and now - begun[0] >= HOUR:
            begun.popleft()
        if self.running[user] >= self.at_once:
            jobs = "one of your jobs is" if self.at_once == 1 else f"{self.at_once} of your jobs are"
            raise SfumatoError(f"{jobs} not done yet: wait for it, or cancel it")
        if len(begun) >= self.per_hour:
            minutes = int((HOUR - (now - begun[0])) // 60) + 1
            raise SfumatoError(f"you have asked {self.per_hour} times within an hour: come back in {minutes} minutes")
        self.running[user] += 1
        begun.append(now)

    def give_back(self, user: str) -> None:
        """A job has ended."""
        self.running[user] -= 1
        if self.running[user] <= 0:
            del self.running[user]


def imagined(prompt: str, model: str | None = None) -> list[dict[str, Any]]:
    """The jobs that a prompt line stands for; SfumatoError for one that cannot be read."""
    lines = parse(prompt)
    if len(lines) > MOST:
        raise SfumatoError(f"this line stands for {len(lines)} prompts; at most {MOST} are drawn at once in a chat")
    if any(not line.text for line in lines):
        raise SfumatoError("say what to draw, e.g. a red apple --ar 3:2 --no leaf")
    return [_job(line, model) for line in lines]


def _job(line: Line, model: str | None) -> dict[str, Any]:
    if line.n is not None and line.n > GRID:
        raise SfumatoError(f"--n is at most {GRID} in a chat")
    ratio = "" if line.ar is None else f" --ar {line.ar[0]}:{line.ar[1]}"
    told = dataclasses.asdict(line) | {"n": line.n or GRID, "negative": line.no, "model": model}
    fields = ("n", "seed", "chaos", "stylize", "style", "negative", "model")
    return {"task": "generate", "prompt": _escaped(line.text) + ratio} | {
        k: told[k] for k in fields if told[k] is not None
    }


def again(job: Mapping[str, Any]) -> dict[str, Any]:
    """The same job with another seed."""
    request = job["request"]
    told = {key: request[key] for key in AGAIN if request.get(key) is not None}
    if request.get("size"):
        told["size"] = "{}x{}".format(*request["size"])
    if request.get("images"):
        told |= {"image": request["images"][0], "parents": [request["images"][0]]}
    return {"task": job["task"], "model": job["model"], **told, "prompt": _escaped(request.get("prompt") or "")}


def upscaled(job: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Picture k (0 ...) alone, twice as large."""
    return _from(job, k, "upscale", n=1, scale=2)


def varied(job: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Four pictures near picture k."""
    return _from(job, k, "vary", n=GRID, strength=0.5)


def filled(job: Mapping[str, Any], k: int, mask: str, prompt: str) -> dict[str, Any]:
    """Four pictures that differ from picture k inside the mask alone."""
    return _from(job, k, "inpaint", n=GRID, mask=mask) | {"prompt": _escaped(prompt)}


def _from(job: Mapping[str, Any], k: int, task: str, **told: Any) -> dict[str, Any]:
    name = file_of(job, k)
    kept = {key: job["request"][key] for key in KEPT if job["request"].get(key) is not None}
    prompt = _escaped(job["request"].get("prompt") or "")
    return {"task": task, "model": job["model"], "image": name, "parents": [name], "prompt": prompt, **kept, **told}


def file_of(job: Mapping[str, Any], k: int) -> str:
    """The hash of picture k; SfumatoError where the job has no such picture."""
    if not 0 <= k < len(job["files"]):
        raise SfumatoError(f"there is no picture {k + 1}: this job has {len(job['files'])}")
    return job["files"][k]["hash"]


def _escaped(text: str) -> str:
    """The server reads a prompt as a line with options and choices: braces that are left are braces."""
    return text.replace("{", "\\{").replace("}", "\\}")


def region(text: str) -> tuple[float, float, float, float]:
    """Where to draw anew, as (left, top, right, bottom) in shares of the sides: words (top left, middle) or four per cents."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    if numbers:
        left, top, right, bottom = (float(n) / 100 for n in numbers) if len(numbers) == 4 else (1.0, 1.0, 0.0, 0.0)
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return left, top, right, bottom
    else:
        words = re.findall(r"[a-z]+", text.lower().replace("centre", "middle").replace("center", "middle"))
        if words and all(word in PLACES for word in words):
            boxes = [PLACES[word] for word in words]
            found = tuple(pick(box[i] for box in boxes) for i, pick in enumerate((max, max, min, min)))
            if found[0] < found[2] and found[1] < found[3]:
                return found
    raise SfumatoError(
        f"the region is left, right, top, bottom, middle or two of them (top left), or four per cents: left, top, right and "
        f"bottom edge, e.g. 0 50 100 100; not {text[:60]!r}"
    )


def mask_of(picture: bytes, box: tuple[float, float, float, float]) -> bytes:
    """The mask for a region of a PNG: white where it is to be drawn anew."""
    width, height = Image.open(BytesIO(picture)).size
    left, top = int(box[0] * width), int(box[1] * height)
    right, bottom = max(round(box[2] * width), left + 1), max(round(box[3] * height), top + 1)
    mask = Image.new("L", (width, height))
    mask.paste(255, (left, top, right, bottom))
    return _png(mask)


def sheet(pictures: list[bytes]) -> bytes:
    """One PNG to show: a single picture as it is, the pictures of one request side by side with the receipt of all."""
    if len(pictures) == 1:
        return pictures[0]
    told = receipt_of(pictures[0]) or {}
    grid = grid_image([Image.open(BytesIO(picture)) for picture in pictures])
    return encoded(grid, {name: value for name, value in told.items() if name not in ("picture", "pixels")})


def _png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
