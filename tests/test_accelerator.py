"""The emulated device keeps the books of a real one; its copies look like their originals."""

import pytest
import torch

from roost.errors import UsageError
from roost.residency.accelerator import EmulatedAccelerator, open_accelerator

TENSORS = {
    "plain": torch.arange(24.0).reshape(2, 3, 4),
    "bfloat16": torch.randn(7, 5).to(torch.bfloat16),
    "float8": torch.randn(9).to(torch.float8_e4m3fn),
    "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "transposed": torch.randn(3, 8).T,
    "offset view": torch.arange(100)[7:20],
    "expanded": torch.arange(4).expand(3, 4),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
    "boolean": torch.tensor([True, False, True]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_copy_has_the_values_shape_strides_and_dtype_of_its_original(name: str) -> None:
    original = TENSORS[name]
    accelerator = EmulatedAccelerator(1024**2)
    for copy in (accelerator.upload(original), accelerator.download(original)):
        assert torch.equal(copy.float(), original.float())
        assert (copy.shape, copy.stride(), copy.dtype) == (original.shape, original.stride(), original.dtype)
        assert copy.numel() == 0 or copy.data_ptr() != original.data_ptr()


@pytest.mark.parametrize("name", TENSORS)
def test_a_device_copy_starts_on_a_multiple_of_256(name: str) -> None:
    assert EmulatedAccelerator(1024**2).upload(TENSORS[name]).data_ptr() % 256 == 0


def test_bytes_count_in_steps_of_256_until_released() -> None:
    accelerator = EmulatedAccelerator(10_000)
    one, two = accelerator.upload(torch.zeros(1)), accelerator.upload(torch.zeros(65))
    assert accelerator.used_bytes == 256 + 512
    accelerator.release(one)
    accelerator.release(two)
    assert accelerator.used_bytes == 0


def test_the_peak_is_the_most_at_once_since_its_reset() -> None:
    accelerator = EmulatedAccelerator(10_000)
    first = accelerator.upload(torch.zeros(256))
    accelerator.release(accelerator.upload(torch.zeros(512)))
    assert accelerator.peak_bytes == 1024 + 2048
    accelerator.reset_peak()
    assert accelerator.peak_bytes == accelerator.used_bytes == 1024
    accelerator.release(first)
    assert accelerator.peak_bytes == 1024


def test_the_budget_fits_to_the_byte_and_no_further() -> None:
    accelerator = EmulatedAccelerator(512)
    accelerator.upload(torch.zeros(128))
    with pytest.raises(torch.OutOfMemoryError, match=r"emulated.*allocate 256 B.*512 B of its budget of 512 B"):
        accelerator.upload(torch.zeros(1))
    assert accelerator.used_bytes == 512


def test_a_tensor_made_in_inference_mode_can_be_uploaded_and_bound_outside() -> None:
    with torch.inference_mode():
        copy = EmulatedAccelerator(1024).upload(torch.ones(3))
    parameter = torch.nn.Parameter(torch.zeros(3), requires_grad=False)
    parameter.data = copy
    assert torch.equal(parameter, torch.ones(3))


@pytest.mark.skipif(torch.cuda.is_available(), reason="only without CUDA")
def test_cuda_without_a_gpu_names_the_way_on() -> None:
    with pytest.raises(UsageError, match="--device emulated"):
        open_accelerator("cuda", 1024)


def test_open_accelerator_gives_the_kind_asked_for() -> None:
    with open_accelerator("emulated", 1024) as accelerator:
        assert (accelerator.kind, accelerator.device.type, accelerator.budget_bytes) == ("emulated", "cpu", 1024)
