"""Weights as quantised formats store them: which plain tensors they are, and what computes with those.

Nothing here moves anything, or knows which file it came from.
"""
