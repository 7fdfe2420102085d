"""Pictures, videos and sound: files to what a pipeline takes, and what it makes to files.

Nothing here knows a plan or a device.
"""
