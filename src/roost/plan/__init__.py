"""The plan document: schema, YAML, atomic writing."""

from roost.plan.files import plan_to_yaml, read_plan, write_text_atomically
from roost.plan.schema import ComponentPlan, PlanDocument

__all__ = ["ComponentPlan", "PlanDocument", "plan_to_yaml", "read_plan", "write_text_atomically"]
