"""The emulated accelerator: host memory that keeps the books, the order and the dangers of a real device."""

from roost.residency.emulated.device import EmulatedDevice, EmulatedEvent
from roost.residency.emulated.happens_before import HappensBeforeError

__all__ = ["EmulatedDevice", "EmulatedEvent", "HappensBeforeError"]
