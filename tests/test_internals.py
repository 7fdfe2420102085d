"""Canaries: each fails when a library changes something private that Roost leans on, and names the file to mend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("diffusers")

import torch
from accelerate.hooks import ModelHook, SequentialHook, add_hook_to_module
from torch.nn.attention import flex_attention
from transformers import BertConfig, PreTrainedModel

import diffusers_canaries
from roost.pipelines.internals import (
    of_accelerate,
    of_diffusers,
    of_fake_tensors,
    of_operators,
    of_torch,
    of_torchao,
    of_transformers,
)

pytestmark = pytest.mark.canary

Linear, Norm = torch.nn.Linear, torch.nn.BatchNorm1d


class _Counted(torch.Tensor):
    """A tensor whose class counts how often it is asked."""

    asked = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.asked += 1
        return super().__torch_function__(func, types, args, kwargs or {})


class _Mode(of_torch.TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError("a mode heard of an operation")


def _tables() -> None:
    module = Norm(2)
    module.register_buffer("loose", torch.zeros(1), persistent=False)
    assert list(of_torch.parameters_of(module)) == ["weight", "bias"]
    assert of_torch.parameters_of(module)["weight"] is module.weight
    assert {"running_mean", "loose"} <= set(of_torch.buffers_of(module))
    assert of_torch.unfiled_names(module) == {"loose"}
    assert list(of_torch.children_of(torch.nn.Sequential(module))) == ["0"]
    other = torch.nn.Parameter(torch.zeros(2))
    vars(module)[of_torch.PARAMETERS] = {**of_torch.parameters_of(module), "weight": other}
    assert module.weight is other
    assert vars(module)[of_torch.BUFFERS] is of_torch.buffers_of(module)


def _hooks() -> None:
    module = Linear(1, 1)
    module.register_forward_hook(len)
    module.register_forward_pre_hook(id)
    assert list(of_torch.forward_hooks(module).values()) == [len]
    assert list(of_torch.forward_pre_hooks(module).values()) == [id]


def _compiled() -> None:
    module = Linear(1, 1)
    assert of_torch.compiled_call_of(module) is None
    module.compile()
    assert of_torch.compiled_call_of(module) is not None


def _conversion() -> None:
    for convert in (lambda each: each.to(torch.float64), Linear.half, Linear.float, Linear.cpu):
        module, heard = Linear(1, 1), []
        vars(module)[of_torch.CONVERT] = lambda change, recurse=True, heard=heard: heard.append(change)
        convert(module)
        assert heard
    assert of_torch.conversion_of(Linear(1, 1))


def _norms() -> None:
    assert isinstance(Norm(2), of_torch.RunningNorm)
    assert not isinstance(torch.nn.LayerNorm(2), of_torch.RunningNorm)


def _binding() -> None:
    tensor, view = torch.zeros(2), torch.ones(2)
    of_torch.bind_one(tensor, view)
    assert tensor.data_ptr() == view.data_ptr()


def _tensors() -> None:
    tensor = torch.zeros(2)
    before = of_torch.version_of(tensor)
    tensor.add_(1)
    assert of_torch.version_of(tensor) == before + 1
    assert all(hasattr(tensor, name) for name in of_torch.METADATA)
    assert of_torch.storage_key(tensor.untyped_storage()) == of_torch.storage_key(tensor[1:].untyped_storage())
    assert of_torch.storage_key(tensor.untyped_storage()) != of_torch.storage_key(torch.zeros(2).untyped_storage())


def _contexts() -> None:
    for context in (of_torch.as_engine, of_torch.without_functions):
        tensor = torch.zeros(2).as_subclass(_Counted)
        with context():
            before = _Counted.asked
            tensor.sum()
        assert _Counted.asked == before
    with of_torch.as_engine(), of_torch.as_user():
        tensor.sum()
    assert _Counted.asked > before
    with _Mode(), of_torch.without_modes():
        torch.zeros(2)


def _operators() -> None:
    aten = torch.ops.aten
    assert of_operators.schema_of(aten.add_.Tensor).is_mutable
    assert not of_operators.schema_of(aten.add.Tensor).is_mutable
    names = (of_operators.MATMULS, of_operators.CONVS, of_operators.NO_KERNEL, of_operators.COPIES)
    assert all(hasattr(aten, name) for name in frozenset().union(*names))
    assert of_operators.is_attention("_scaled_dot_product_flash_attention")
    assert hasattr(aten, "_scaled_dot_product_flash_attention")
    formula = of_operators.flops_of(aten.mm)
    assert formula is not None
    assert formula(torch.zeros(2, 3), torch.zeros(3, 4), out_val=torch.zeros(2, 4)) == 48
    assert of_operators.attention_flops((1, 1, 2, 4), (1, 1, 2, 4), (1, 1, 2, 4)) == 64
    operator = vars(flex_attention)["flex_attention_hop"]
    assert isinstance(operator, of_operators.HigherOrderOperator)
    assert of_operators.eager_kernel(operator) is not None


def _fake_tensors() -> None:
    mode = of_fake_tensors.FakeTensorMode(allow_non_fake_inputs=True)
    shape = torch.empty(2, 3, device="meta")
    fake = of_fake_tensors.FakeTensor(mode, shape, torch.device("cpu"))
    with of_fake_tensors.as_meta(mode):
        assert torch.ops.aten.t.default(fake).device.type == "meta"
    assert mode.dispatch(torch.ops.aten.neg.default, (), (fake,), {}).shape == (2, 3)
    with pytest.raises(of_fake_tensors.UNKNOWN_SHAPES):
        mode.dispatch(torch.ops.aten.nonzero.default, (), (fake,), {})
    before = dict(vars(flex_attention))
    with of_fake_tensors.eager_flex_attention():
        assert dict(vars(flex_attention)) != before
    assert dict(vars(flex_attention)) == before


def _without_initial_weights() -> None:
    for no_init in (of_diffusers.without_initial_weights, of_transformers.without_initial_weights):
        before = torch.nn.init.normal_
        with no_init():
            assert torch.nn.init.normal_ is not before
        assert torch.nn.init.normal_ is before


def _transformers() -> None:
    import transformers.dynamic_module_utils as dynamic_modules
    from transformers import BertModel
    from transformers.integrations import hub_kernels

    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=8)
    model = of_transformers.model_from_config(BertModel, config, torch.bfloat16)
    assert isinstance(model, PreTrainedModel)
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16}
    assert not of_transformers.converts_its_files(model)
    with of_transformers.closed_to_the_outside():
        assert dynamic_modules.TIME_OUT_REMOTE_CODE == 0
        with pytest.raises(FileNotFoundError):
            hub_kernels.get_kernel("canary/none")


def _accelerate() -> None:
    module, hook = Linear(1, 1), SequentialHook(ModelHook(), ModelHook())
    add_hook_to_module(module, hook)
    assert vars(module)[of_accelerate.HOOK] is hook
    assert of_accelerate.hooks_of(vars(module)) == list(hook.hooks)
    assert of_accelerate.hooks_of({}) == []


CANARIES: dict[Callable[[], None], str] = {
    **dict.fromkeys((_tables, _hooks, _compiled, _conversion, _norms, _binding, _tensors, _contexts), "of_torch"),
    _operators: "of_operators",
    _fake_tensors: "of_fake_tensors",
    **dict.fromkeys(
        (
            diffusers_canaries.diffusers_hooks,
            diffusers_canaries.diffusers_caches,
            diffusers_canaries.diffusers_classes,
            diffusers_canaries.diffusers_attention,
        ),
        "of_diffusers",
    ),
    **dict.fromkeys(
        (
            diffusers_canaries.diffusers_single_files,
            diffusers_canaries.diffusers_blocks,
            diffusers_canaries.diffusers_bfl,
        ),
        "of_diffusers",
    ),
    _without_initial_weights: "of_diffusers.py or of_transformers",
    _transformers: "of_transformers",
    _accelerate: "of_accelerate",
}


def test_torchao_makes_weights_of_the_tensors_that_its_files_hold(tmp_path: Path) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    from safetensors.torch import save_file
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    packed = torch.nn.Sequential(torch.nn.Linear(32, 8)).to(torch.bfloat16)
    plain = torch.nn.Sequential(torch.nn.Linear(32, 8)).to(torch.bfloat16)
    quantization.quantize_(packed, quantization.Int8WeightOnlyConfig())
    tensors, said = flatten_tensor_state_dict({"0.weight": packed[0].weight.data})
    save_file(tensors, tmp_path / "x.safetensors", metadata=said)
    of_torchao.put_untouched(plain, [tmp_path / "x.safetensors"])
    made, given = plain[0].weight, packed[0].weight
    assert (type(made), made.dtype, made.shape) == (type(given), given.dtype, given.shape)
    assert made.__tensor_flatten__()[1] == given.__tensor_flatten__()[1]


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.__name__.strip("_"))
def test_what_roost_leans_on_is_as_it_was(canary: Callable[[], None]) -> None:
    try:
        canary()
    except BaseException as error:
        pytest.fail(f"a library changed: mend src/roost/pipelines/internals/{CANARIES[canary]}.py ({error!r})")
