"""Several workers that serve requests together: what travels between them, what each does, and who does what next.

Only bytes, text and numbers leave a worker. How workers are started and reached is ``ray_cluster``'s business alone.
"""
