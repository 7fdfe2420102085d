"""A model, in a directory or known by name: what it holds, and what one generation of it does.

Nothing here knows a GPU.
"""
