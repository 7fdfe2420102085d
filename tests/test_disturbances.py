"""What falsifies a measurement is seen, by the GPU's own words or by the samples, and said in one sentence."""

from __future__ import annotations

import threading
from types import SimpleNamespace as Fields

import pynvml
import pytest

from fake_nvml import FakeCard, FakeNvml
from roost.api.runs import disturbances
from roost.api.runs.disturbances import disturbances_of, watched
from roost.probes.machine.gpu import PcieLink
from roost.probes.machine.gpu_conditions import ConditionSampler, GpuConditions, read_conditions
from roost.probes.machine.nvml import list_devices
from roost.tune.results.disturbances import condition_warnings, outliers, timing_warnings

HEAT, POWER = pynvml.nvmlClocksEventReasonHwThermalSlowdown, pynvml.nvmlClocksEventReasonSwPowerCap
GEN4, GEN3, IDLE = PcieLink(4, 16), PcieLink(3, 16), PcieLink(1, 16)


def look(*throttled: str, link: PcieLink = GEN4, pids=(), clock: int | None = 2520) -> GpuConditions:
    return GpuConditions(
        sm_clock_mhz=clock, throttled=frozenset(throttled), link=link, fastest_link=GEN4, pids=frozenset(pids)
    )


def conditions_of(card: FakeCard) -> GpuConditions:
    nvml = FakeNvml(card)
    (device,), _ = list_devices(nvml)
    return read_conditions(nvml, device)


def test_conditions_are_read_from_nvml() -> None:
    busy = [Fields(pid=7, usedGpuMemory=None), Fields(pid=9, usedGpuMemory=1)]
    found = conditions_of(FakeCard(CurrentClocksEventReasons=HEAT | POWER, ComputeRunningProcesses=busy))
    assert found.throttled == {"heat", "power"}
    assert (found.link, found.fastest_link) == (PcieLink(1, 8), GEN4)
    assert (found.sm_clock_mhz, found.pids) == (2520, {7, 9})


def test_an_idle_gpu_and_clocks_that_a_user_set_are_no_throttling() -> None:
    idle = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    assert conditions_of(FakeCard(CurrentClocksEventReasons=idle)).throttled == frozenset()


def test_older_drivers_name_the_reasons_differently() -> None:
    unknown = pynvml.NVMLError_FunctionNotFound()
    card = FakeCard(CurrentClocksEventReasons=unknown, CurrentClocksThrottleReasons=HEAT)
    assert conditions_of(card).throttled == {"heat"}


def test_what_nvml_refuses_is_unknown() -> None:
    refused = pynvml.NVMLError_NotSupported()
    names = ("CurrentClocksEventReasons", "CurrentClocksThrottleReasons", "ClockInfo", "ComputeRunningProcesses")
    found = conditions_of(FakeCard(CurrPcieLinkGeneration=refused, **dict.fromkeys(names, refused)))
    assert (found.sm_clock_mhz, found.throttled, found.pids) == (None, frozenset(), frozenset())
    assert found.link == PcieLink(None, 8)
    assert condition_warnings([[found]]) == []


def test_the_sampler_looks_while_it_is_open_and_closes_nvml() -> None:
    seen = threading.Event()

    class Watched(FakeNvml):
        def nvmlDeviceGetClockInfo(self, card, which):
            seen.set()
            return 1980

    nvml = Watched(FakeCard())
    with ConditionSampler("GPU-aaaa1111-0000", every_s=60, nvml=nvml) as sampler:
        assert seen.wait(10)
    assert [each.sm_clock_mhz for each in sampler.looks] == [1980]
    assert nvml.open == 0


@pytest.mark.parametrize(
    "nvml",
    [FakeNvml(start=pynvml.NVMLError_LibraryNotFound()), FakeNvml(FakeCard(handle=pynvml.NVMLError_GpuIsLost()))],
    ids=["no driver", "the card is lost"],
)
def test_the_sampler_sees_nothing_where_there_is_nothing(nvml) -> None:
    with ConditionSampler("GPU-aaaa1111-0000", nvml=nvml) as sampler:
        pass
    assert sampler.looks == ()
    assert nvml.open == 0


def test_undisturbed_trials_give_no_warning() -> None:
    assert condition_warnings([[look(pids=[1])], [look(pids=[2])]]) == []
    assert timing_warnings({"a": [(1.0, 1.01, 0.99), (1.0, 1.02, 1.01)], "b": [(2.0,)], "c": []}) == []


def test_throttling_is_said_with_its_share_and_the_clocks() -> None:
    looks = [look("heat", clock=1200), look("heat", clock=1980), *[look()] * 3]
    (warning,) = condition_warnings([looks])
    assert warning.startswith("the GPU slowed itself down for heat in 2 of 5 looks (SM clock 1200 to 2520 MHz)")
    assert condition_warnings([[look("power"), *[look()] * 19]]) == []  # a moment


def test_a_slow_link_is_judged_by_the_fastest_that_was_seen_under_load() -> None:
    assert condition_warnings([[look(link=IDLE), look(link=GEN4)], [look(link=IDLE)]]) == []
    (warning,) = condition_warnings([[look(link=IDLE), look(link=GEN3)]])
    assert "generation 3 × 16 under load, and card and slot can do 4 × 16: copies took 2 × as long" in warning


def test_a_process_that_outlives_a_trial_is_somebody_elses() -> None:
    (warning,) = condition_warnings([[look(pids=[100, 7])], [look(pids=[101, 7])], [look(pids=[102])]])
    assert warning.startswith("1 other process was on the GPU during the trials (pid 7)")


def test_lone_slow_steps_are_outliers_and_a_wide_spread_is_none() -> None:
    assert outliers([1.0, 1.01, 0.99, 1.0, 2.0]) == [2.0]
    assert outliers([1.0, 1.2, 0.8, 1.1, 1.4, 0.9]) == []
    assert outliers([1.0, 1.0, 1.0, 1.0, 1.04]) == []  # under 5 %
    assert outliers([1.0, 1.0, 9.0]) == []  # three don't say which one is odd
    (warning,) = timing_warnings({"a": [(1.0, 1.01, 0.99), (1.0, 2.0, 1.01)]})
    assert warning.startswith("a: 1 of 6 steps took up to 1.99 × the median")


def test_a_slow_first_round_is_told_from_slow_steps() -> None:
    (warning,) = timing_warnings({"a": [(1.5, 1.5), (1.0, 1.01), (1.0, 1.0), (1.01, 0.99)]})
    assert warning.startswith("a: its first round was 1.50 × as slow as the others")


def test_a_run_is_disturbed_by_heat_and_not_by_its_power_limit_or_for_a_moment() -> None:
    assert disturbances_of([look("power", pids=[7])] * 5, own_pid=7) == ()
    assert disturbances_of([look("heat"), *[look()] * 19], own_pid=7) == ()
    (found,) = disturbances_of([look("heat"), look("heat", "power"), *[look()] * 3], own_pid=7)
    assert found.startswith("the GPU slowed itself down for heat in 2 of 5 looks;")


@pytest.mark.parametrize(
    ("pids", "said"),
    [
        ([[7], [7, 9], [7, 11]], "2 other processes were on the GPU (pid 9, 11);"),
        ([[9], [7, 9]], "1 other process was on the GPU (pid 9);"),
        ([[7], []], None),
        ([[50], [50, 51]], "1 other process was on the GPU;"),  # a container's numbers: one of them is the run
        ([[50], [50]], None),
        ([], None),
    ],
)
def test_a_run_is_disturbed_by_other_processes_on_its_gpu(pids: list[list[int]], said: str | None) -> None:
    found = disturbances_of([look(pids=each) for each in pids], own_pid=7)
    assert [each[: len(said or "")] for each in found] == ([] if said is None else [said])


def test_an_emulated_device_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturbances, "present_gpu", lambda: pytest.fail("NVML was asked"))
    with watched("emulated") as found:
        pass
    assert found() == ()


def test_a_run_on_a_card_is_watched_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = [Fields(pid=1, usedGpuMemory=None), Fields(pid=2, usedGpuMemory=None)]
    asked = threading.Event()

    class Hot(FakeNvml):
        def nvmlDeviceGetClockInfo(self, card, which):
            asked.set()
            return 1980

    nvml = Hot(FakeCard(CurrentClocksEventReasons=HEAT, ComputeRunningProcesses=busy))
    monkeypatch.setattr(disturbances, "present_gpu", lambda: Fields(uuid="GPU-aaaa1111-0000"))
    monkeypatch.setattr(disturbances, "ConditionSampler", lambda uuid: ConditionSampler(uuid, every_s=60, nvml=nvml))
    with watched("cuda") as found:
        assert asked.wait(10)
    heat, others = found()
    assert "in 1 of 1 looks" in heat
    assert others.startswith("1 other process was on the GPU;")
    assert nvml.open == 0
