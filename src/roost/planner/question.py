"""One planning question: all the facts that a plan depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from roost.facts import Choices, Inventory, Machine, ModelProfile, Workload
from roost.planner.roles import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything a plan depends on."""

    inventory: Inventory
    profile: ModelProfile
    machine: Machine
    workload: Workload
    choices: Choices
    role: Role
    versions: Mapping[str, str]
