"""``roost explain``: every decision of a plan with its arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roost.cli.options import Json
from roost.cli.screen import show_json

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan's YAML file.")]
Alternatives = Annotated[
    bool, typer.Option("--alternatives", help="Compare the plan with the others that the search kept.")
]


def explain(plan: PlanFile, alternatives: Alternatives = False, as_json: Json = False) -> None:
    """Explain a plan's decisions with their arithmetic, from the document alone.

    roost explain wan.yaml --alternatives
    """
    from roost.api.plans.explain import explain_plan, explanation_document
    from roost.api.plans.plan_files import load_plan
    from roost.cli.views.explain import show_alternatives, show_explanation

    document = load_plan(plan)
    explanation = explain_plan(document)
    if as_json:
        show_json(explanation_document(document, explanation))
    elif alternatives:
        show_alternatives(document, explanation)
    else:
        show_explanation(document, explanation)
