"""What may be chosen, what it costs, which combination is best, and what would help where nothing fits.

Nothing here writes a plan.
"""
