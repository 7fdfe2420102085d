"""One file a command, named like it: options to a call of ``api``, the answer to a view.

No arithmetic and no layout of screens.
"""
