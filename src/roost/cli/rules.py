"""``roost rules``: the rule table that ``--policy rules`` evaluates."""

from __future__ import annotations

from roost.cli.options import Json
from roost.cli.screen import show_json, show_text


def rules(as_json: Json = False) -> None:
    """Show every placement rule: when it applies, what it does, why, and its source."""
    from roost.planner.rules import RULES

    if as_json:
        rows = [
            {"id": each.id, "condition": each.condition, "result": each.result, "why": each.why, "source": each.source}
            for each in RULES
        ]
        show_json({"schema": 1, "rules": rows})
        return
    for rule in RULES:
        show_text(rule.id)
        show_text(f"  when    {rule.condition}")
        show_text(f"  then    {rule.result}")
        show_text(f"  why     {rule.why}")
        show_text(f"  source  {rule.source}")
