"""What is on the device at each moment of a call: strategies, slots, release, and steps down when memory is short.

Nothing here loads a model or touches a user's object, but for the attributes that ``guards`` put on it.
"""
