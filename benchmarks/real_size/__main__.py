"""``python benchmarks/real_size NAME DIR`` (its own folder: beside inspect.py, `import inspect` goes astray)."""

from real_size import main

raise SystemExit(main())
