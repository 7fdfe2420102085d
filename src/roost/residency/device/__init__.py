"""The device as the engine sees it: memory, a compute lane, a copy lane, events. CUDA, and the emulated one.

Nothing here knows a component or a plan.
"""
