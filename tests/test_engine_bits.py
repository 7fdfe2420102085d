"""Whatever streams, stays or changes between generations: the bits are those of the bare pipeline."""

import functools

import pytest

from dealing import dealt
from engine_cases import Case, digest_of, every_case, held_on, pairwise_cases, plan_of, rest_of_cases
from live_pipelines import bare_digest, digest_without_plan, live_pipeline
from plans import LAYERWISE, plan_for
from roost.facts.resident_policy import policy_of
from roost.plan import ComponentPlan
from roost.plan.revision import revised
from tiny_models import FAMILIES

WHOLE_PRODUCT = ("flux", pytest.param("wan2.2", marks=pytest.mark.slow))
OTHERS = sorted(set(FAMILIES) - {"flux", "wan2.1"})
LARGER = {"width": 96}


@functools.cache
def bare_larger_digest(name: str) -> str:
    return digest_without_plan(live_pipeline(name), name, **LARGER)


@pytest.mark.dealt(4)
@pytest.mark.parametrize("case", every_case(), ids=str)
@pytest.mark.parametrize("name", WHOLE_PRODUCT)
def test_the_whole_product_is_exact(name: str, case: Case) -> None:
    check(name, case)


@pytest.mark.dealt(6)
@pytest.mark.parametrize(("name", "case"), dealt(OTHERS, pairwise_cases(), every=3))
def test_a_pairwise_cover_is_exact(name: str, case: Case) -> None:
    check(name, case)


@pytest.mark.parametrize("name", ["flux", "sdxl"])
def test_a_number_of_residents_for_each_stack_is_exact(name: str) -> None:
    pipeline = live_pipeline(name)
    plan = plan_for(pipeline, LAYERWISE)
    parts = {key: _by_stack(each) for key, each in plan.components.items()}
    assert any(each.resident_blocks for each in parts.values())
    with held_on(name, plan.model_copy(update={"components": parts})) as (held, _device):
        assert [digest_of(held, name) for _ in range(2)] == [bare_digest(name)] * 2


def _by_stack(component: ComponentPlan) -> ComponentPlan:
    """All of the first stack stays and nothing of the others, in another order than that of names."""
    stacks = component.stacks[::-1]
    first, *others = [stack.count for stack in stacks]
    if not others:
        return component
    slots, policy = min(component.slots or 0, sum(others)), policy_of([first, *[0] * len(others)])
    return revised(component, stacks=stacks, resident_blocks=first, resident_policy=policy, slots=slots)


@pytest.mark.slow
@pytest.mark.parametrize("case", rest_of_cases(), ids=str)
@pytest.mark.parametrize("name", OTHERS)
def test_the_rest_of_the_product_is_exact(name: str, case: Case) -> None:
    check(name, case)


def check(name: str, case: Case) -> None:
    """Two generations, and one of another shape between them."""
    with held_on(name, plan_of(live_pipeline(name), case)) as (held, device):
        assert digest_of(held, name) == bare_digest(name)
        assert digest_of(held, name, **LARGER) == bare_larger_digest(name)
        assert digest_of(held, name) == bare_digest(name)
    assert (device.used_bytes, device.pinned_bytes) == (0, 0)
