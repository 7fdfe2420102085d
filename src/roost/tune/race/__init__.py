"""Who runs in the next round, who is out, and why. Pure: seconds in, standings out.

Nothing here knows a process or a plan.
"""
