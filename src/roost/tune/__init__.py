"""Timed trials: candidates, one child process for each trial, the race between them, and what became of each.

Rooms within: ``results`` → ``race`` → ``trials`` → ``bench``, ``choice``.
"""
