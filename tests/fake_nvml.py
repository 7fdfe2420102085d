"""A made-up NVIDIA driver for tests: cards with given figures, and pynvml's real exceptions."""

from types import SimpleNamespace as Fields

import pynvml

from roost.probes.machine.gpu import read_gpus

MiB, GiB = 1024**2, 1024**3


class FakeCard:
    """One card. Keyword arguments replace its figures; an exception instead of a figure is raised on asking."""

    def __init__(self, uuid="GPU-aaaa1111-0000", **figures):
        memory = Fields(total=24 * GiB, free=20 * GiB, used=40 * MiB, reserved=300 * MiB)
        self.figures = {
            "UUID": uuid,
            "Name": "NVIDIA GeForce RTX 4090",
            "MigMode": pynvml.NVMLError_NotSupported(),
            "CudaComputeCapability": (8, 9),
            "MaxPcieLinkGeneration": 4,
            "MaxPcieLinkWidth": 16,
            "CurrPcieLinkGeneration": 1,
            "CurrPcieLinkWidth": 8,
            "ComputeRunningProcesses": [],
            "GraphicsRunningProcesses": [],
            "CurrentClocksEventReasons": 0,
            "CurrentClocksThrottleReasons": 0,
            "ClockInfo": 2520,
            "memory_v2": memory,
            "memory_v1": Fields(total=memory.total, free=memory.free, used=memory.used),
            "handle": None,
            "mig_devices": [],
            **figures,
        }

    def ask(self, figure):
        value = self.figures[figure]
        if isinstance(value, list) and figure.startswith("memory"):
            value = value.pop(0)
        if isinstance(value, Exception):
            raise value
        return value


class FakeNvml:
    """Stands in for the pynvml module, with its real exceptions and constants; handles are the cards themselves."""

    def __init__(self, *cards, start=None, driver="570.124.06"):
        self.cards, self.start, self.driver, self.open = cards, start, driver, 0

    def __getattr__(self, name):
        if name.startswith(("NVML", "nvmlMemory", "nvmlClocks")):
            return getattr(pynvml, name)
        if name.startswith("nvmlDeviceGet"):
            return lambda card, *which: card.ask(name.removeprefix("nvmlDeviceGet"))
        raise AttributeError(name)

    def nvmlInit(self):
        if self.start:
            raise self.start
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlSystemGetDriverVersion(self):
        if isinstance(self.driver, Exception):
            raise self.driver
        return self.driver

    def nvmlDeviceGetCount(self):
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):
        self.cards[index].ask("handle")
        return self.cards[index]

    def nvmlDeviceGetMemoryInfo(self, card, version=None):
        return card.ask("memory_v2" if version == pynvml.nvmlMemory_v2 else "memory_v1")

    def nvmlDeviceGetMaxMigDeviceCount(self, card):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card, place):
        if place >= len(card.figures["mig_devices"]):
            raise pynvml.NVMLError_NotFound
        return card.figures["mig_devices"][place]


def survey(*cards, samples=1, environ=None, **driver):
    nvml = FakeNvml(*cards, **driver)
    found = read_gpus(samples=samples, pause_s=0, nvml=nvml, environ=environ or {})
    assert nvml.open == 0, "NVML was left initialised, or shut down without being initialised"
    return found


def mig_card(*mig_uuids, uuid="GPU-cccc4444-0000"):
    refused = pynvml.NVMLError_NoPermission()
    instances = [
        FakeCard(
            each,
            Name="NVIDIA A100-SXM4-40GB MIG 1g.5gb",
            memory_v2=Fields(total=5 * GiB, free=4 * GiB, used=0, reserved=0),
        )
        for each in mig_uuids
    ]
    return FakeCard(uuid, MigMode=[1, 1], mig_devices=instances, memory_v2=refused, memory_v1=refused)
