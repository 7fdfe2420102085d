"""Several workers that serve requests together: what travels between them, what each does, and who does what next.

Only bytes, text and numbers leave a worker. Which processes workers are is known to ``ray_cluster``, ``ray_pool`` and
``ray_actor`` alone.
"""
