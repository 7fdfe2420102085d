"""What a placement takes: rates of a card, seconds and bytes of each use, the simulation, the estimate.

Nothing here chooses between placements.
"""
