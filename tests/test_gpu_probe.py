"""The NVML probe against a made-up driver: the figures it reads, and a sentence of its own for each failure."""

import os
import subprocess
import sys
from types import SimpleNamespace as Fields

import pynvml
import pytest

from fake_nvml import FakeCard, GiB, MiB, mig_card, survey
from roost.errors import UsageError
from roost.probes.machine.gpu import GpuSurvey, PcieLink, select_gpu


def test_a_card_is_read_in_full():
    found = survey(FakeCard(ComputeRunningProcesses=[Fields(pid=7, usedGpuMemory=GiB)]))
    assert found.problem is None
    gpu = select_gpu(found)
    assert gpu.facts.name == "NVIDIA GeForce RTX 4090"
    assert (gpu.facts.total_bytes, gpu.facts.free_bytes, gpu.reserved_bytes) == (24 * GiB, 20 * GiB, 300 * MiB)
    assert (gpu.facts.device_kind, gpu.facts.platform, gpu.facts.source) == ("cuda", "cuda", "nvml")
    assert (gpu.facts.uuid, gpu.facts.driver) == ("GPU-aaaa1111-0000", "570.124.06")
    assert gpu.facts.compute_capability == "8.9"
    assert (gpu.facts.pcie_generation, gpu.facts.pcie_width) == (4, 16)
    assert gpu.link == PcieLink(generation=1, width=8)
    assert gpu.processes == ((7, GiB),)
    assert (gpu.index, gpu.mig, gpu.notes) == (0, False, ())


def test_free_memory_is_the_least_of_the_samples_and_never_total_less_used():
    samples = [Fields(total=24 * GiB, free=free * GiB, used=0, reserved=0) for free in (20, 11, 19)]
    assert survey(FakeCard(memory_v2=samples), samples=3).gpus[0].facts.free_bytes == 11 * GiB


def test_a_card_lost_between_two_samples_is_not_offered():
    first = Fields(total=24 * GiB, free=20 * GiB, used=0, reserved=0)
    found = survey(
        FakeCard(memory_v2=[first, pynvml.NVMLError_GpuIsLost()], memory_v1=pynvml.NVMLError_GpuIsLost()), samples=2
    )
    assert found.gpus == ()
    assert "GPU 0 (NVIDIA GeForce RTX 4090): The GPU is lost" in found.problem


def test_an_old_driver_without_reserved_memory_is_read_with_a_note():
    gpu = survey(FakeCard(memory_v2=pynvml.NVMLError_FunctionNotFound())).gpus[0]
    assert gpu.facts.free_bytes == 20 * GiB
    assert gpu.reserved_bytes is None
    assert gpu.notes == ("NVML does not report the memory that the driver reserves of this GPU.",)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("LibraryNotFound", "NVML library is missing"),
        ("DriverNotLoaded", "kernel driver is not loaded"),
        ("LibRmVersionMismatch", "differ in version"),
        ("NoPermission", "No permission"),
        ("OperatingSystem", "operating system blocked"),
        ("Timeout", "did not answer in time"),
        ("Unknown", "without a cause"),
        ("CorruptedInforom", "NVML failed: Corrupted infoROM"),
    ],
)
def test_each_failure_to_start_is_its_own_sentence(error, words):
    found = survey(start=getattr(pynvml, f"NVMLError_{error}")())
    assert found.gpus == ()
    assert words in found.problem
    assert found.problem.endswith(".")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("GpuIsLost", "The GPU is lost"),
        ("ResetRequired", "needs a reset"),
        ("InsufficientPower", "power cables"),
        ("IrqIssue", "interrupt problem"),
        ("NoPermission", "No permission"),
    ],
)
def test_a_card_that_fails_is_named_and_leaves_the_others(error, words):
    broken = FakeCard(handle=getattr(pynvml, f"NVMLError_{error}")())
    found = survey(broken, FakeCard("GPU-aaaa2222-0000"))
    assert [gpu.index for gpu in found.gpus] == [1]
    assert found.problem.startswith("GPU 0: ")
    assert words in found.problem


def test_a_driver_without_a_card_says_so():
    assert survey().problem == "The NVIDIA driver is loaded but finds no GPU."


@pytest.mark.parametrize("memory", [pynvml.NVMLError_NotSupported(), Fields(total=0, free=0, used=0, reserved=0)])
def test_unified_memory_asks_for_vram_instead_of_reading_zero(memory):
    found = survey(FakeCard(Name="NVIDIA GB10", memory_v2=memory, memory_v1=pynvml.NVMLError_NotSupported()))
    assert found.gpus == ()
    assert "NVIDIA GB10" in found.problem
    assert "unified" in found.problem
    assert "--vram" in found.problem


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        ("UUID", "UUID"),
        ("CudaComputeCapability", "compute capability"),
        ("MaxPcieLinkGeneration", "fastest PCIe link"),
        ("CurrPcieLinkWidth", "present PCIe link"),
    ],
)
def test_a_missing_figure_is_unknown_with_a_note(figure, words):
    gpu = survey(FakeCard(**{figure: pynvml.NVMLError_NotSupported()})).gpus[0]
    assert [words in note for note in gpu.notes] == [True]
    unknown = (gpu.facts.uuid, gpu.facts.compute_capability, gpu.facts.pcie_generation, gpu.link.width)
    assert unknown.count(None) == 1


def test_processes_that_cannot_be_seen_are_never_no_processes():
    refused = pynvml.NVMLError_NotSupported()
    gpu = survey(FakeCard(ComputeRunningProcesses=refused, GraphicsRunningProcesses=refused)).gpus[0]
    assert gpu.processes is None
    assert gpu.notes == ("NVML does not list the processes on this GPU.",)
    busy = Fields(total=24 * GiB, free=12 * GiB, used=12 * GiB, reserved=0)
    gpu = survey(FakeCard(memory_v2=busy)).gpus[0]
    assert gpu.processes is None
    assert "12.0 GiB are in use by processes that NVML does not show" in gpu.notes[0]


def test_own_process_is_left_out_and_hidden_sizes_stay_unknown():
    processes = [Fields(pid=os.getpid(), usedGpuMemory=GiB), Fields(pid=9, usedGpuMemory=None)]
    assert survey(FakeCard(GraphicsRunningProcesses=processes)).gpus[0].processes == ((9, None),)


def test_mig_mode_without_a_mig_device_says_so():
    found = survey(mig_card())
    assert found.gpus == ()
    assert found.problem == "GPU 0: MIG mode is on but it has no MIG device; create one or turn MIG off."


def test_no_gpu_is_an_error_that_names_both_ways_on():
    with pytest.raises(UsageError) as caught:
        select_gpu(GpuSurvey(gpus=(), problem="There is none."))
    assert str(caught.value).startswith("There is none. ")
    assert "gpu='NAME'" in str(caught.value)
    assert "gpu='emulated' with vram='SIZE'" in str(caught.value)


def test_importing_the_probe_does_not_import_nvml():
    check = (
        "import sys, roost.probes.machine.gpu, roost.probes.machine.host\n"
        "sys.exit('pynvml' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
