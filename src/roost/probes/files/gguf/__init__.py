"""GGUF headers, read strictly and bounded: what this accepts, the ``gguf`` package accepts.

No data of a tensor is read here, and no library is needed.
"""
