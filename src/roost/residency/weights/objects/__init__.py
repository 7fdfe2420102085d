"""The tensor objects that modules hold: how they are watched between uses, and what stands for them during one.

Nothing here allocates or copies.
"""
