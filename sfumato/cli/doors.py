"""The options of the doors beside the server: its policy, the chat bot, assistants; nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable

POLICY = "rules of the owner (JSON), on top of the package's; see 'sfumato policy show'"


def add_doors(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The commands with their options."""
    policy = command("policy", "Ask the rules of a server about a prompt (exit code 1: refused), or show them.")
    policy.add_argument("action", choices=["check", "show"])
    policy.add_argument("prompt", nargs="?", help="what somebody would ask for")
    policy.add_argument("--rules", metavar="FILE.json", help=POLICY)

    bot = command("bot", "A Discord bot that draws: a client of 'sfumato serve'.")
    bot.add_argument("--server", metavar="URL", default="http://127.0.0.1:7860", help="the server (this machine's)")
    bot.add_argument("--token-file", metavar="FILE", help="Discord's token of the bot (or DISCORD_TOKEN)")
    bot.add_argument("--at-once", type=int, default=2, metavar="N", help="jobs of one user that may wait or run (2)")
    bot.add_argument("--per-hour", type=int, default=60, metavar="N", help="jobs of one user in an hour (60)")

    assistant = command("mcp", "Tools for assistants, over the Model Context Protocol on stdin and stdout.")
    assistant.add_argument("--folder", metavar="DIR", default=".", help="where files are read and written (here)")
    assistant.add_argument("--model", metavar="RUN|FILE|NAME", help="the model where the assistant names none")
    assistant.add_argument("--policy", metavar="FILE.json", help="refuse prompts by the package's rules and these")
