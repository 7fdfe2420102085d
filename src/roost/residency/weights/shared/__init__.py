"""Masters in memory that the processes of one host share: made by the first, mapped by the others, gone with the last.

Nothing here reads weight files, knows the device, or opens the memory of another host or user.
"""
