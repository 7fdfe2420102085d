"""Learning: what runs on this machine taught, for the next plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from roost.facts import GpuFacts, Inventory
from roost.measured import DeviceKey, MeasuredRate, device_key
from roost.planner.costs import Kappa
from roost.planner.fitting import kappas_in_use, rates_in_use
from roost.profiles.store import MeasuredStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was measured of a device for a model class; ``notes`` say what was measured and does not count."""

    rates: Mapping[str, MeasuredRate] = field(default_factory=dict)
    kappas: Mapping[str, Kappa] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


NOTHING_KNOWN = Known()


def known_of(gpu: GpuFacts, inventory: Inventory) -> Known:
    """What the store knows of this device under this driver, and of the model's class on it."""
    store, key = MeasuredStore(), device_key(gpu)
    device = store.read(key, None)
    model = store.read(key, model_class(inventory.family, inventory.pipeline))
    others = () if device or model else _others(store, key)
    return Known(rates=rates_in_use(device, model), kappas=kappas_in_use(device), notes=(*store.notes, *others))


def model_class(family: str | None, pipeline: str | None) -> str:
    """What runs of different models have in common: the family, or the pipeline's class where that is unknown."""
    return family or pipeline or "unknown"


def _others(store: MeasuredStore, key: DeviceKey) -> tuple[str, ...]:
    """A note for each device of the same name whose figures are not this one's."""
    same = [each for each in store.devices() if (each.device_kind, each.name) == (key.device_kind, key.name)]
    wanted = "the card by its name alone" if key.device_kind == "cuda" and key.driver is None else key.text
    return tuple(f"what was measured on {each.text} is not used: this plan is for {wanted}." for each in same)
