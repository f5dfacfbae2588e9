"""What a run would ask of its models, and what that can cost, before it is asked: ``curation run --plan``."""

from curation.planning.plan import Plan, plan
from curation.planning.requests import Planned
from curation.planning.words import plan_lines

__all__ = ["Plan", "Planned", "plan", "plan_lines"]
