"""What is decided without a price: the rule table, what was typed, and the names, kinds and roles they speak of.

Nothing here knows bytes of a budget or seconds.
"""
