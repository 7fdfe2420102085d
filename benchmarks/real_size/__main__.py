"""``python benchmarks/real_size NAME DIR`` (a folder of its own: beside inspect.py, `import inspect` would go astray)."""

from real_size import main

raise SystemExit(main())
