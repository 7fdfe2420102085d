"""A plan put in force on a pipeline and taken off: hooks, and whether live modules are what was planned.

Nothing here loads or calls a pipeline.
"""
