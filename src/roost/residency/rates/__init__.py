"""Timing what a device and its host can do, through the very device that runs use.

Figures only; what they teach is in ``api/measurements``.
"""
