"""Runs of plans with several workers: the driver's side, and the side of a worker in a process of its own.

What workers do with requests is decided in ``fleet``; nothing here plans.
"""
