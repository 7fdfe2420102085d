"""Random toy worlds for the engine: components of integer blocks, plans, and schedules of uses.

Integer sums wrap exactly, so one wrong byte anywhere changes the result. The sizes and copies that a schedule must
need are computed here from the plans alone, not asked of the engine.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from plans import component_plan
from roost.blocks import resident_indices
from roost.facts.resident_policy import policy_of
from roost.plan import ComponentPlan
from roost.plan.schema import Masters


class Weights(torch.nn.Module):
    def __init__(self, counts: list[int], generator: torch.Generator) -> None:
        super().__init__()
        for index, count in enumerate(counts):
            values = torch.randint(-(2**40), 2**40, (count,), generator=generator)
            self.register_parameter(f"w{index}", torch.nn.Parameter(values, requires_grad=False))


class Block(torch.nn.Module):
    def __init__(self, counts: list[int], generator: torch.Generator) -> None:
        super().__init__()
        self.inner = Weights(counts, generator)

    def kernel(self, state: torch.Tensor) -> tuple[Callable[[], None], list[torch.Tensor]]:
        """What the block does to ``state``, with the addresses that it has now, and what that reads."""
        weights = [each.data for each in self.inner.parameters()]

        def run() -> None:
            for weight in weights:
                state.mul_(31).add_(weight.sum()).add_(weight[-1])

        return run, weights


class Component(torch.nn.Module):
    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(chance.randrange(2**31))
        self.trunk = Block(_counts(chance), generator)
        self.trunk.scale = torch.nn.Parameter(torch.ones(5), requires_grad=False)  # a second dtype in one buffer
        even = chance.random() < 0.5
        counts = _counts(chance)
        for name in ("blocks", "layers")[: chance.choice((1, 1, 2))]:
            blocks = [Block(counts if even else _counts(chance), generator) for _ in range(chance.randint(2, 7))]
            self.add_module(name, torch.nn.ModuleList(blocks))


@dataclass(frozen=True)
class Use:
    """One call into a component: who leaves before it, and the blocks it runs; it raises before ``fails_at``."""

    component: int
    leaving: tuple[int, ...]
    order: tuple[str, ...]
    fails_at: int | None


@dataclass
class World:
    """Components with their plans, and what is done with them. The same seed gives the same world."""

    seed: int
    regular: bool = field(init=False)  # every use runs all blocks in their order
    modules: list[Component] = field(init=False)
    plans: list[ComponentPlan] = field(init=False)
    uses: list[Use] = field(init=False)
    staging_buffers: int = field(init=False)

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)
        self.regular = chance.random() < 0.5
        self.modules = [Component(chance) for _ in range(chance.randint(1, 3))]
        self.plans = [_plan(module, chance) for module in self.modules]
        self.staging_buffers = chance.randint(1, 3)
        self.uses = [self._use(chance) for _ in range(chance.randint(3, 7))]

    def expected(self) -> torch.Tensor:
        """What plain modules give."""
        state = torch.zeros(4, dtype=torch.int64)
        for use in self.uses:
            module = self.modules[use.component]
            for block in (module.trunk, *map(module.get_submodule, use.order[: use.fails_at])):
                assert isinstance(block, Block)
                block.kernel(state)[0]()
        return state

    def expected_peak_bytes(self) -> int:
        """Most device bytes of all components present at once; what leaves does so before the next one comes."""
        present = {index: set() for index, plan in enumerate(self.plans) if plan.strategy == "resident"}
        peak = sum(self.stage_bytes(index, set()) for index in present)
        for use in self.uses:
            for index in use.leaving:
                if self.plans[index].strategy != "resident":
                    present.pop(index, None)
            touched = present.setdefault(use.component, set())
            # Held blocks come in with their forward: the one that the use fails at was not entered.
            touched |= set(use.order[: use.fails_at])
            peak = max(peak, sum(self.stage_bytes(index, names) for index, names in present.items()))
        return peak

    def expected_copied_bytes(self) -> int:
        """Host to device bytes of a regular world."""
        total = sum(self.stage_bytes(i, set()) for i, plan in enumerate(self.plans) if plan.strategy == "resident")
        present: set[int] = set()
        for use in self.uses:
            plan, sizes = self.plans[use.component], self.block_bytes(use.component)
            present -= set(use.leaving)
            if plan.strategy == "resident":
                continue
            streamed = self._streamed(use.component)
            slots = min(plan.slots or 0, len(streamed))
            first = use.component not in present
            if first or not plan.hold:
                if first:
                    total += self._trunk_bytes(use.component) + sum(sizes.values())
                    total -= sum(sizes[name] for name in streamed[0 if plan.hold else slots :])
                    total += sum(sizes[name] for name in streamed) if plan.hold else 0
                if not plan.hold and len(streamed) > slots:
                    total += sum(sizes[name] for name in streamed)
            present.add(use.component)
        return total

    def block_bytes(self, index: int) -> dict[str, int]:
        """Device bytes of each block, in the order in which they run."""
        return {name: _aligned(self.modules[index].get_submodule(name)) for name in block_order(self.modules[index])}

    def _trunk_bytes(self, index: int) -> int:
        return _aligned(self.modules[index].trunk)

    def _streamed(self, index: int) -> list[str]:
        plan, names = self.plans[index], list(self.block_bytes(index))
        if plan.strategy != "layerwise-offload":
            return []
        assert plan.resident_blocks is not None
        assert plan.resident_policy is not None
        staying = resident_indices([stack.count for stack in plan.stacks], plan.resident_blocks, plan.resident_policy)
        return [name for position, name in enumerate(names) if position not in staying]

    def stage_bytes(self, index: int, touched: set[str]) -> int:
        """Device bytes of a component while it is there, of its held blocks those in ``touched``."""
        plan, sizes, streamed = self.plans[index], self.block_bytes(index), self._streamed(index)
        staying = sum(size for name, size in sizes.items() if name not in streamed) + self._trunk_bytes(index)
        if plan.hold:
            return staying + sum(sizes[name] for name in streamed if name in touched)
        slots = min(plan.slots or 0, len(streamed))
        return staying + slots * max((sizes[name] for name in streamed), default=0)

    def _use(self, chance: random.Random) -> Use:
        component = chance.randrange(len(self.modules))
        leaving = tuple(index for index in range(len(self.modules)) if chance.random() < 0.5)
        order, fails_at = block_order(self.modules[component]), None
        if not self.regular:
            if chance.random() < 0.4:
                order = chance.sample(order, chance.randint(1, len(order)))
            if chance.random() < 0.2:
                fails_at = chance.randrange(len(order))
        return Use(component, leaving, tuple(order), fails_at)


def block_order(module: Component) -> list[str]:
    return [name for name, each in module.named_modules() if isinstance(each, Block) and name != "trunk"]


def _plan(module: Component, chance: random.Random) -> ComponentPlan:
    kinds = ("layerwise-offload",) * 6 + ("snapshot-offload", "component-offload", "resident")
    strategy = chance.choice(kinds)
    if strategy != "layerwise-offload":
        return component_plan("transformer", module, strategy=strategy)
    blocks = len(block_order(module))
    resident = chance.choice((0, 1, blocks // 2, blocks - 1, blocks))
    policy = chance.choice(("strided", "leading"))
    counts = [len(each) for each in module.children() if isinstance(each, torch.nn.ModuleList)]
    if len(counts) > 1 and chance.random() < 0.5:
        of_stacks = [chance.randint(0, count) for count in counts]
        resident, policy = sum(of_stacks), policy_of(of_stacks)
    plan = component_plan(
        "transformer",
        module,
        strategy=strategy,
        resident_blocks=resident,
        resident_policy=policy,
        hold=chance.random() < 0.15,
    )
    prefetch = chance.randint(1, 3)
    pinned = chance.choice((0, blocks // 2, blocks))
    mapped = chance.randint(0, blocks - pinned) if chance.random() < 0.4 else 0
    masters = Masters(pinned=pinned, pageable=blocks - pinned - mapped, mapped=mapped)
    slots = min(prefetch + 1, blocks - resident)
    return plan.model_copy(update={"prefetch": prefetch, "slots": slots, "master": masters})


def _counts(chance: random.Random) -> list[int]:
    return [chance.randint(1, 300) for _ in range(chance.randint(1, 3))]


def _aligned(module: torch.nn.Module) -> int:
    return sum(-(-each.nbytes // 256) * 256 for each in module.parameters())


def batches(count: int, size: int) -> list[range]:
    """Seeds in ranges that make one test each."""
    return [range(start, start + size) for start in range(0, count, size)]
