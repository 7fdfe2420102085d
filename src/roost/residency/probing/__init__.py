"""Timing what a device and its host can do, through the very device that runs use."""
