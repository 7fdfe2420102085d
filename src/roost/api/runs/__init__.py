"""A run: a plan checked here and now, its pipeline held, its generations made, saved and recorded.

What happens on the device is decided in ``residency``; nothing here plans.
"""
