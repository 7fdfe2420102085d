"""Between the planner's values and the plan document's records, both ways.

Nothing here decides; what a document may hold is in ``roost.plan``.
"""
