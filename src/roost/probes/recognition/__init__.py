"""What files and folders are that can't be loaded as they are, and what to do about each.

Only what a file says of itself counts here; what a model needs is in ``probes/model``.
"""
