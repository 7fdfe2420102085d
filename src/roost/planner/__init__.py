"""From facts to a plan, by the rules alone or by the search. Pure: no torch, file, clock, chance or printing.

Rooms within: ``rules`` → ``placements`` → ``ruling`` → ``cost`` → ``search`` → ``documents`` → {``by_rules``,
``by_search``} → ``fleet``.
"""
