"""What the simulated CUDA does: addresses of kernels, late copies, order, refusals, limits, devices."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from simulated import counters, last_addresses, refusing, runtime, violations, watched
from true_values import TrueValues

from roost.residency.weights.host_masters import host_memory

MIB = 1024**2


@pytest.fixture
def copies() -> torch.cuda.Stream:
    return torch.cuda.Stream()


@pytest.fixture
def slot() -> torch.Tensor:
    buffer = torch.empty(MIB, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    return buffer


@pytest.fixture
def registered() -> Iterator[torch.Tensor]:
    memory = host_memory(MIB)
    assert int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)) == 0
    yield memory
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())


def upload(slot: torch.Tensor, source: torch.Tensor, stream: torch.cuda.Stream) -> None:
    with torch.cuda.stream(stream):
        slot.copy_(source, non_blocking=True)


def in_child(code: str, **variables: str) -> str:
    from os import environ

    done = subprocess.run(
        [sys.executable, "-c", code], env={**environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- kernels ----


def test_a_kernel_is_seen_with_exactly_the_addresses_it_was_given() -> None:
    left, right = torch.empty(1000, device="cuda"), torch.empty(1000, device="cuda")
    left.add_(right)
    assert set(last_addresses()) == {left.data_ptr(), right.data_ptr()}


def test_operands_of_a_strided_kernel_are_seen() -> None:
    left, right = torch.empty(10, 100, device="cuda"), torch.empty(100, 10, device="cuda")
    made = torch.add(left.t(), right)
    assert set(last_addresses()) == {left.data_ptr(), right.data_ptr(), made.data_ptr()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_linear_layer_reads_its_weight_and_its_bias(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(64, 64, device="cuda", dtype=dtype)
    state = torch.empty(64, 64, device="cuda", dtype=dtype)
    made = layer(state)
    operands = {layer.weight.data_ptr(), layer.bias.data_ptr(), state.data_ptr(), made.data_ptr()}
    assert operands <= set(last_addresses())


def test_attention_norms_and_tables_of_inputs_are_seen_and_nothing_is_unseen() -> None:
    heads = [torch.empty(1, 8, 256, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    made = torch.nn.functional.scaled_dot_product_attention(*heads)
    assert {each.data_ptr() for each in (*heads, made)} <= set(last_addresses())
    weight = torch.empty(64, device="cuda")
    torch.nn.functional.layer_norm(torch.empty(16, 64, device="cuda"), (64,), weight, weight)
    assert weight.data_ptr() in last_addresses()
    parts = [torch.empty(8, 64, device="cuda") for _ in range(3)]
    joined = torch.cat(parts)
    assert set(last_addresses()) == {each.data_ptr() for each in (*parts, joined)}
    assert counters()["unseen_kernels"] == 0


# ---- copies: contents and order ----


def test_a_copy_arrives_when_the_host_waits_for_it_and_no_sooner(copies, slot, registered) -> None:
    registered.fill_(7)
    seen = (ctypes.c_uint8 * 1).from_address(slot.data_ptr())
    upload(slot, registered, copies)
    assert seen[0] != 7
    copies.synchronize()
    assert seen[0] == 7


def test_a_kernel_that_did_not_wait_reads_what_was_there_before(copies, slot, registered, found) -> None:
    registered.fill_(7)
    with TrueValues(every=True):
        slot.fill_(1)
        torch.cuda.synchronize()
        upload(slot, registered, copies)
        early = slot[:4].clone()
        torch.cuda.current_stream().wait_stream(copies)
        late = slot[:4].clone()
        assert early.tolist() == [1] * 4
        assert late.tolist() == [7] * 4
    found.append("is not ordered behind copy to the device")
    assert violations()


def test_a_kernel_that_waits_on_the_device_is_in_order(copies, slot, registered) -> None:
    upload(slot, registered, copies)
    torch.cuda.current_stream().wait_event(copies.record_event())
    slot.view(-1, 2).t().zero_()


def test_an_event_recorded_before_the_copy_orders_nothing(copies, slot, registered, found) -> None:
    early = copies.record_event()
    upload(slot, registered, copies)
    torch.cuda.current_stream().wait_event(early)
    slot.view(-1, 2).t().add_(1)
    found.append("is not ordered behind copy to the device")
    assert len(violations()) >= 1


def test_a_copy_into_what_a_kernel_still_reads_is_found(copies, slot, registered, found) -> None:
    slot.view(-1, 2).t().add_(1)
    upload(slot, registered, copies)
    found.append("copy to the device on lane")
    assert len(violations()) == 1


def test_what_the_host_waited_for_is_known_to_all_that_it_enqueues_later(copies, slot, registered) -> None:
    upload(slot, registered, copies)
    torch.cuda.synchronize()
    slot.view(-1, 2).t().add_(1)


def test_a_source_that_changes_before_its_copy_was_waited_for_is_found(copies, slot, registered, found) -> None:
    upload(slot, registered, copies)
    registered.fill_(9)
    copies.synchronize()
    found.append("changed before the copy was waited for")
    assert len(violations()) == 1


def test_memory_that_is_unregistered_under_a_copy_is_found(copies, slot, found) -> None:
    memory, cudart = host_memory(MIB), torch.cuda.cudart()
    cudart.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)
    upload(slot, memory, copies)
    cudart.cudaHostUnregister(memory.data_ptr())
    found.append("that a copy may still read")
    assert len(violations()) == 1
    torch.cuda.synchronize()


def test_a_copy_that_goes_beyond_its_registered_range_is_found_and_waits(copies, slot, found) -> None:
    memory, cudart = host_memory(MIB), torch.cuda.cudart()
    cudart.cudaHostRegister(memory.data_ptr(), MIB // 2, 0)
    upload(slot, memory, copies)
    cudart.cudaHostUnregister(memory.data_ptr())
    found.append("goes beyond the page-locked range")
    assert counters()["straddles"] == counters()["blocking_copies"] == 1


# ---- calls that are refused, limits ----


def test_registering_twice_and_unregistering_what_is_not_registered_are_found(registered, found) -> None:
    cudart = torch.cuda.cudart()
    assert int(cudart.cudaHostRegister(registered.data_ptr(), 4096, 0)) == 712
    assert int(cudart.cudaHostUnregister(registered.data_ptr() + 4096)) == 713
    runtime().cudaGetLastError()  # or the next allocation would find it, as on a GPU
    found.extend(["registered already", "nothing was registered"])
    assert len(violations()) == 2


def test_the_nth_call_is_refused_and_the_next_one_is_not() -> None:
    torch.cuda.empty_cache()
    with refusing("cudaMalloc", 2):
        first = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        with refusing("cudaMalloc", -1), pytest.raises(torch.OutOfMemoryError):
            torch.empty(32 * MIB, dtype=torch.uint8, device="cuda")
    assert torch.empty(32 * MIB, dtype=torch.uint8, device="cuda").nbytes < first.nbytes
    assert counters()["refusals"] >= 1


def test_a_launch_that_is_refused_is_an_error_of_the_next_line() -> None:
    state = torch.empty(3, 1000, device="cuda").t()
    with refusing("cudaLaunchKernel", 1), pytest.raises(torch.AcceleratorError, match="out of memory"):
        state.add_(1)
    state.add_(1)


def test_memory_is_limited_and_the_limit_is_what_is_reported() -> None:
    code = "import torch; print(torch.cuda.mem_get_info(), torch.cuda.get_device_properties(0).total_memory)"
    assert in_child(code, SIM_TOTAL_MIB="8192") == f"({(8192 - 420) * MIB}, {8192 * MIB}) {8192 * MIB}"
    full = "import torch; torch.empty(9 << 30, dtype=torch.uint8, device='cuda')"
    with pytest.raises(AssertionError, match=r"Tried to allocate 9\.00 GiB"):
        in_child(full, SIM_TOTAL_MIB="8192")


def test_pinning_ends_at_its_limit() -> None:
    code = (
        "import torch; from roost.residency.weights.host_masters import host_memory; pages = host_memory(2 << 20);"
        "register = torch.cuda.cudart().cudaHostRegister; start = pages.data_ptr();"
        "print(int(register(start, 1 << 20, 0)), int(register(start + (1 << 20), 4096, 0)))"
    )
    assert in_child(code, SIM_PIN_MIB="1") == "0 2"


# ---- devices ----


def test_devices_have_memory_capability_and_identity_of_their_own() -> None:
    code = (
        "import torch, pynvml as n; n.nvmlInit(); of = torch.cuda.get_device_properties;"
        "all = [of(index) for index in range(torch.cuda.device_count())];"
        "print([(each.total_memory >> 20, each.major, str(each.uuid)[-2:]) for each in all],"
        " n.nvmlDeviceGetCount(), n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(1))[-2:])"
    )
    both = {"SIM_DEVICES": "2", "SIM_TOTAL_MIB": "8192,24217", "SIM_CC": "75,90"}
    assert in_child(code, **both) == "[(8192, 7, '00'), (24217, 9, '01')] 2 01"
    for second in ("1", "GPU-01020304-0506-0708-090a-0b0c0d0e0f01"):
        assert in_child(code, **both, CUDA_VISIBLE_DEVICES=second) == "[(24217, 9, '01')] 2 01"


def test_a_context_comes_with_the_first_call_on_a_device() -> None:
    code = (
        "import torch; from simulated import counters; torch.cuda.set_device(1); torch.empty(9, device='cuda:1');"
        "print(counters(0)['contexts'], counters(1)['contexts'])"
    )
    assert in_child(code, SIM_DEVICES="2") == "0.0 1.0"


def test_a_kernel_on_memory_of_another_device_is_found() -> None:
    code = (
        "import torch; from simulated import runtime, violations; other = torch.empty(99, device='cuda:1');"
        "runtime().sim_kernel(torch.cuda.Stream(0).cuda_stream, other.data_ptr()); print(violations())"
    )
    assert "device 0 uses memory of device 1" in in_child(code, SIM_DEVICES="2")


# ---- what is told ----


def test_who_waits_is_told_with_file_and_line() -> None:
    state = torch.empty(8, device="cuda")
    with watched() as calls:
        state.cpu()
        torch.cuda.synchronize()
    assert [call.name for call in calls] == ["blocking copy", "cudaStreamSynchronize", "cudaDeviceSynchronize"]
    assert all(call.at.startswith("test_model_of_cuda.py:") for call in calls)


def test_models_of_any_size_run_without_touching_memory() -> None:
    code = (
        "import torch, psutil; a = torch.empty(20 << 30, dtype=torch.uint8, device='cuda'); a.fill_(1);"
        "b = torch.empty(8 << 30, dtype=torch.uint8, pin_memory=True); a[: 8 << 30].copy_(b, non_blocking=True);"
        "torch.cuda.synchronize(); print(psutil.Process().memory_info().rss < 2 << 30)"
    )
    assert in_child(code, SIM_NO_COPY="1") == "True"


def test_the_runtime_is_the_simulated_one() -> None:
    assert runtime().sim_registered() == 0
