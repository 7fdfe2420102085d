"""What a generation is worth while it runs, kept beside its output: latents before they are decoded, and steps.

Nothing here knows a family: calls are watched where the pipeline makes them, and answered the same way.
"""
