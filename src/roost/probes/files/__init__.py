"""Files read safely, whoever wrote them: regular files only, bounded, JSON and safetensors headers strictly.

Nothing here knows what a model directory is.
"""
