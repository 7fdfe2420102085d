"""Writes docs/rules.md from the rule table; with --check, fails when the committed file is stale."""

from __future__ import annotations

import sys
from pathlib import Path

from roost.planner.rules.table import RULES

TARGET = Path(__file__).parents[1] / "docs" / "rules.md"


def rules_page() -> str:
    """The page's text."""
    parts = [
        "# Placement rules",
        "",
        "Generated from `src/roost/planner/rules/table.py` by `scripts/generate_docs.py`; edit there.",
        "",
        "`roost plan --policy rules` evaluates these rows once, from top to bottom. Each starts from what is still",
        "undecided; what a row decided is never decided again. `roost rules` prints the same table.",
    ]
    for rule in RULES:
        parts += [
            "",
            f"## {rule.id}",
            "",
            f"- **When:** {rule.condition}",
            f"- **Then:** {rule.result}",
            f"- **Why:** {rule.why}",
            f"- **Source:** {rule.source}",
        ]
    return "\n".join(parts) + "\n"


def main() -> int:
    page = rules_page()
    if "--check" in sys.argv[1:]:
        if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != page:
            print("docs/rules.md is stale: run scripts/generate_docs.py", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
