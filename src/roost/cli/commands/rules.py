"""``roost rules``: the rule table that ``--policy rules`` evaluates."""

from __future__ import annotations

from roost.cli.options import Json
from roost.cli.screen import show_folded, show_json, show_text


def rules(as_json: Json = False) -> None:
    """Show every placement rule: when it applies, what it does, why, and its source."""
    from roost.planner.rules.table import RULES

    if as_json:
        rows = [
            {"id": each.id, "condition": each.condition, "result": each.result, "why": each.why, "source": each.source}
            for each in RULES
        ]
        show_json({"schema": 1, "rules": rows})
        return
    for rule in RULES:
        show_text(rule.id)
        for label, words in (
            ("when", rule.condition),
            ("then", rule.result),
            ("why", rule.why),
            ("source", rule.source),
        ):
            show_folded(f"{label.ljust(6)}  {words}", indent="  ", hanging=8)
