"""Timed trials: candidates, one child process for each trial, the race between them, the journal and the results."""
