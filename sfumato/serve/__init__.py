"""The server, its policy, and the other doors to a model: chat and assistants."""

from sfumato.serve.policy import Rules, Verdict, check, check_picture, rules

__all__ = ["Rules", "Verdict", "check", "check_picture", "rules"]
