"""The uses of the tool, each as a function: what joins the rooms below, for the command line and for Python.

Rooms within: ``requests`` and ``models`` → ``measurements`` → ``plans`` → ``runs`` and ``trials`` → ``attach``,
``bench``, ``tuning``. Nothing here prints or decides where a weight goes.
"""
