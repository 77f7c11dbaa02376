"""sfumato bot: the Discord bot."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from sfumato.cli.console import say
from sfumato.core import SfumatoError
from sfumato.data.records import shown
from sfumato.serve.client import address
from sfumato.serve.wishes import Limits


def bot(options: argparse.Namespace) -> dict[str, Any]:
    """Run until a signal comes; returns what --json prints."""
    limits, token = Limits(options.at_once, options.per_hour), _token(options.token_file)
    server = address(options.server)
    try:
        import discord

        from sfumato.serve.bot import Bot
    except ImportError as error:
        raise SfumatoError("the bot needs the package discord.py: pip install 'sfumato[bot]'") from error
    say(f"drawing with {server}; Ctrl-C ends it")
    try:
        Bot(server, limits, os.environ.get("SFUMATO_TOKEN")).run(token)
    except discord.LoginFailure as error:
        raise SfumatoError("Discord does not know this token: take the one of your application's page, Bot") from error
    return {"server": server}


def _token(file: str | None) -> str:
    """Discord's token, from a file or the environment: never from the command line, where other users could read it."""
    if file is not None:
        try:
            found = Path(file).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise SfumatoError(f"cannot read the token in {shown(file)}: {error}") from error
    else:
        found = os.environ.get("DISCORD_TOKEN", "").strip()
    if not found:
        raise SfumatoError("the bot needs Discord's token: --token-file FILE, or DISCORD_TOKEN in the environment")
    return found
