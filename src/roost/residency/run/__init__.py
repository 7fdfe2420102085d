"""A pipeline loaded by a plan and called: components in order, LoRAs, texts ahead, generations, trials.

Nothing here copies weights by itself.
"""
