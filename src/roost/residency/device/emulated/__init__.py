"""The emulated accelerator: host memory that keeps the books, the order and the dangers of a real device.

Everything here is behind ``residency/device/interface``; the engine never knows which device it has.
"""

from roost.residency.device.emulated.device import EmulatedDevice, EmulatedEvent
from roost.residency.device.emulated.happens_before import HappensBeforeError

__all__ = ["EmulatedDevice", "EmulatedEvent", "HappensBeforeError"]
