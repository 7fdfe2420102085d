"""What would help where nothing fits, or nothing surely does: which changes are named.

A change is a question with another answer; nothing here looks for the best placement or writes a plan.
"""

from roost.planner.search.remedies.change import Change, Finds, LoadedAs, Remedy, TraceOther, remedy_text
from roost.planner.search.remedies.remedies import remedies, surer

__all__ = ["Change", "Finds", "LoadedAs", "Remedy", "TraceOther", "remedies", "remedy_text", "surer"]
