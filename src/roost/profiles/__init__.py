"""Data: cards, families, published models, facts of classes; and the store of what was measured on this machine.

A number here carries its source; nothing here is worked out.
"""
