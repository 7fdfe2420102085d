"""Frozen facts that pass between the rooms. Each says where it comes from; unknown is None.

No arithmetic beyond a sum, no file, and no text for people but what a stage is called.
"""
