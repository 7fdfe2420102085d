"""What trials found: records of one and of all, the figures that are compared, and the results as a file.

Nothing here runs or ranks anything.
"""
