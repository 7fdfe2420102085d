"""Several cards: which of them does what, what a fleet of workers serves, and which layout is chosen and why.

Seconds and bytes of a worker are those of its own plan; nothing here prices weights or work.
"""
