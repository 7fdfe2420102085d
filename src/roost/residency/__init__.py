"""Makes a plan true: weights on the device when they are used, and not otherwise.

Rooms within: ``device`` → ``weights`` → ``engine`` → ``hold`` → ``run``; ``media`` and ``rates`` beside them.
"""
