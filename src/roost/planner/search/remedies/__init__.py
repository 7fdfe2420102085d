"""What would help where nothing fits: each change as a question of its own, and which of them are named.

A change is a question with another answer; nothing here looks for the best placement or writes a plan.
"""

from roost.planner.search.remedies.change import Change, Remedy, TraceOther, remedy_text
from roost.planner.search.remedies.remedies import remedies

__all__ = ["Change", "Remedy", "TraceOther", "remedies", "remedy_text"]
