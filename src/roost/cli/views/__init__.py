"""How answers look on a terminal: one file for each command whose answer takes more than a table.

Facts in, text out; nothing here asks or decides anything.
"""
