"""sfumato verify and sfumato reproduce: where a picture comes from, and whether it comes out again."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfumato.cli.console import say
from sfumato.core import SfumatoError
from sfumato.data.records import shown
from sfumato.measure.reproduce import followed
from sfumato.measure.reproduce import reproduce as again
from sfumato.tasks import load
from sfumato.tasks.receipt import encoded, fingerprint, machine
from sfumato.tasks.shipped import beside, find, listed
from sfumato.tasks.verify import verify as examined
from sfumato.train import keep_large_blocks


def verify(options: argparse.Namespace) -> dict[str, Any]:
    """Say what the file tells of its origin; returns what --json prints, with `exit_code` 1 for no mark or an untrue one."""
    verdict = examined(options.file)
    say(f"{shown(options.file)}: {verdict.found}")
    for words in verdict.words:
        say(f"  {shown(words)}")
    return {
        "file": options.file,
        "found": verdict.found,
        "receipt": verdict.receipt,
        "pixels": verdict.pixels,
        "declared": verdict.declared,
        "credentials": None if verdict.seal is None else asdict(verdict.seal),
        "contradictions": list(verdict.contradictions),
        "exit_code": 0 if verdict.found in ("made here", "made by AI") else 1,
    }


def reproduce(options: argparse.Namespace) -> dict[str, Any]:
    """Draw the picture of a receipt again; returns what --json prints, with `exit_code` 1 where it is not the same."""
    keep_large_blocks()
    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix.lower() != ".png":
        raise SfumatoError(f"--out is a .png file, which keeps every pixel as it is, not {shown(out.name)!r}")
    told = followed(options.file)
    model = load(_model(options.model, told["model"]))
    done = again(options.file, model, options.parent)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        now = {k: v for k, v in told.items() if k != "pixels"} | {"weights": fingerprint(model), "machine": machine()}
        out.write_bytes(encoded(done.image, now))
    state = "the same, bit for bit" if done.identical else "not the same"
    far = "" if done.identical or done.apart is None else f": a pixel differs by up to {done.apart} of 255"
    say(f"{shown(options.file)}: {state}{far}")
    for words in done.differs:
        say(f"  {shown(words)}")
    return {
        "file": options.file,
        "identical": done.identical,
        "differs": list(done.differs),
        "apart": done.apart,
        "out": None if out is None else str(out),
        "exit_code": 0 if done.identical else 1,
    }


def _model(given: str | None, name: str) -> Path:
    """The model as given, or by the name in the receipt: here, in runs/, or one that comes with the package."""
    if given is not None:
        return find(given)
    here = [path for path in beside(name) if path.exists()]
    here += [find(model["name"]) for model in listed() if model["name"] == name]
    if not here:
        raise SfumatoError(f"the receipt names the model {shown(name[:80])}, which is not here: give it with --model")
    return here[0]
