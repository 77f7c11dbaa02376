"""The command line."""

from sfumato.cli.main import main

__all__ = ["main"]
