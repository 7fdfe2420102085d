"""Generations of a run that other processes make: who makes which, what is sent of them, and how it is saved here.

How the processes of a fleet are started and what they do is ``fleets``' business.
"""
