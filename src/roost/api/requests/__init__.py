"""What a caller asks for, as typed, checked and turned into facts: options, prompts, input files, LoRAs.

Nothing here looks at a model or at the machine.
"""
