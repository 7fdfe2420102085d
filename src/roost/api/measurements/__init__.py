"""What runs and probes measured on this machine, the store of it, and what it teaches the next plan.

Nothing here runs a model or makes a plan.
"""
