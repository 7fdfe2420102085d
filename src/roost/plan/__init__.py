"""The plan document and the records around it: schema, YAML, atomic writing, what was measured.

Nothing here decides, and a figure is worked out from its own record alone.
"""

from roost.plan.files import plan_to_yaml, read_plan, write_bytes_atomically, write_text_atomically
from roost.plan.schema import ComponentPlan, PlanDocument

__all__ = [
    "ComponentPlan",
    "PlanDocument",
    "plan_to_yaml",
    "read_plan",
    "write_bytes_atomically",
    "write_text_atomically",
]
