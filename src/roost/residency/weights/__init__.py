"""A component's weights: every tensor found once, units and masters, and the copies between host and device.

Nothing here knows which component runs or runs next.
"""
