"""Everything private of torch, diffusers, transformers and accelerate that Roost leans on, a file per library.

Each name says why, and which public way was rejected; tests/test_internals.py has a canary for it. Nothing private of
theirs is used elsewhere, and nothing of Roost's is known here. Importing this package itself brings no library.
"""
