"""Components that FSDP shards over the processes of one run: their process group, shards, and what reads them.

Nothing here moves a sharded weight; the engine only hears of calls. May not import ``run`` or ``hold``.
"""
