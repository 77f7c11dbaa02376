"""A cleaned set beside the original: what an audit found, put right by a plan that can be read, edited and undone."""

from sfumato.data.clean.apply import clean, plan_path, undo
from sfumato.data.clean.plan import ACTIONS, Action, Plan, read_plan

__all__ = ["ACTIONS", "Action", "Plan", "clean", "plan_path", "read_plan", "undo"]
