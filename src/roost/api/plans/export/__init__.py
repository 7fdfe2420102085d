"""A plan's placement in the words of others: SGLang's flags, or a script that diffusers runs without Roost.

One file a target. Nothing here loads weights; what a target can't say is a note, never left out in silence.
"""
