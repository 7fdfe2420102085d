"""What is tried, and one trial after another, a child process each, with a journal that takes up an interrupted bench.

Nothing here ranks candidates.
"""
