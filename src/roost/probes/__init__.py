"""What the world is like: files, models, the machine, and by a dry run what a pipeline would do. Decides nothing.

Rooms within: ``files`` → ``recognition`` → ``model`` → ``dry_run``; ``machine``. Only ``dry_run`` may import torch.
"""
