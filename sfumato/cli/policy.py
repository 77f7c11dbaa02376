"""sfumato policy: what the rules say of a prompt, and what they are."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from sfumato.cli.console import say
from sfumato.core import SfumatoError
from sfumato.data.records import shown
from sfumato.serve.policy import check, rules


def policy(options: argparse.Namespace) -> dict[str, Any]:
    """Check a prompt, or show the rules; returns what --json prints."""
    own = rules(options.rules)
    if options.action == "check":
        if options.prompt is None:
            raise SfumatoError("say which prompt: sfumato policy check 'a castle by ...'")
        verdict = check(options.prompt, own)
        say(shown(verdict.message) or "allowed")
        return {**dataclasses.asdict(verdict), "exit_code": int(not verdict.allowed)}
    if options.prompt is not None:
        raise SfumatoError("'sfumato policy show' takes no prompt; did you mean 'sfumato policy check'?")
    artists, figures = own.told.get("artists") or {}, own.told.get("figures") or {}
    living = [name for name, person in artists.items() if "died" not in person]
    say(
        f"artists: {len(living)} living, whose styles are refused; {len(artists) - len(living)} dead, whose styles pass"
    )
    say(f"figures: {len(figures)}")
    for category, words in (own.told.get("words") or {}).items():
        say(f"words.{shown(category)}: {len(words)}, such as {', '.join(shown(word) for word in list(words)[:6])}")
    for category, limit in (own.told.get("pictures") or {}).items():
        say(f"pictures.{shown(category)}: refused from {limit:g} on, where a classifier is given")
    return dict(own.told)
