"""What Roost knows of diffusers' and transformers' classes: which are allowed, how they are built and called.

Here live the libraries; nothing here knows a plan, a device or a model directory's weights.
"""
