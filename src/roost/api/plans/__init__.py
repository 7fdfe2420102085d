"""Plans: made, swept, explained, compared, simulated again, checked before a run and updated after one.

Nothing here loads weights.
"""
