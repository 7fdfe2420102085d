"""A model from its directory's headers and configs alone: layout, components, files, tensors, sizes.

No weights are read, nothing is downloaded, and no library is imported.
"""
