"""Pages for people to look at: one file each, without scripts and without the network.

Facts in, text of a page out; nothing here reads or writes a file.
"""
