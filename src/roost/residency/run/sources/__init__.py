"""Where a component's weights come from, when it isn't loaded whole from the model's own files by its library.

Nothing here places a weight or calls a pipeline.
"""
