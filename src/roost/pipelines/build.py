"""A pipeline from a model directory's configs, with weights that nobody fills, or random ones."""

from __future__ import annotations

import contextlib
import inspect
import json
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from roost.errors import InvalidFile
from roost.facts.model import ClassFacts
from roost.pipelines.classes import component_class, model_class, pipeline_class
from roost.pipelines.internals import of_diffusers, of_transformers
from roost.pipelines.internals.of_torch import buffers_of, parameters_of, unfiled_names
from roost.pipelines.internals.of_transformers import closed_to_the_outside

_MODULES_AT_LEAST, _MODULES_PER_TENSOR = 10_000, 20
_MODULES_OF_ANY = 40_000  # several times as many as any model that is known
_SAFELY = {"use_safetensors": True, "local_files_only": True}


class Described(Protocol):
    """What an inventory's component and a plan's have in common: which class to build, and at which dtype."""

    @property
    def library(self) -> str | None: ...
    @property
    def class_name(self) -> str: ...
    @property
    def load_dtype(self) -> str | None: ...


def build_component(
    name: str, described: Described, model_dir: Path, facts: ClassFacts, tensors: int | None = None
) -> torch.nn.Module:
    """The component's module with the shapes and dtypes that its library's loader gives it.

    ``facts`` say which modules stay float32, ``tensors`` how many its files hold. Raises InvalidFile for a config that
    the class can't use.
    """
    found: Any = model_class(described.library, described.class_name)
    folder = model_dir / name if (model_dir / name).is_dir() else model_dir
    dtype = getattr(torch, described.load_dtype or "float32")
    most = _MODULES_AT_LEAST + _MODULES_PER_TENSOR * (tensors or 0)
    try:
        with closed_to_the_outside(), kept_default_dtype(dtype), _no_init(), bounded_modules(most):
            if hasattr(found, "load_config"):
                module = found.from_config(found.load_config(str(folder), local_files_only=True))
            else:
                config = found.config_class.from_pretrained(str(folder), local_files_only=True)
                module = of_transformers.model_from_config(found, config, dtype)
    except Exception as error:  # the libraries raise every kind for a config they can't use
        line = " ".join(str(error).split())[:300]
        raise InvalidFile(
            f"component {name!r} can't be built from its config: {type(error).__name__}: {line!r}; "
            "check its config.json, or install a version of the library that reads it."
        ) from error
    _cast(module, dtype, facts)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    module.eval().requires_grad_(False)
    return module  # type: ignore[no-any-return]


def build_pipeline(model_dir: Path, modules: Mapping[str, torch.nn.Module]) -> Any:
    """The directory's pipeline around ``modules``; everything without weights is loaded from the directory."""
    index = json.loads((model_dir / "model_index.json").read_text(encoding="utf-8"))
    found: Any = pipeline_class(index["_class_name"])
    check_installed(index)
    for name, entry in index.items():
        if name not in modules and isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str):
            component_class(*entry)
    with closed_to_the_outside():
        without = left_out(found, index, modules)
        pipeline = found.from_pretrained(str(model_dir), trust_remote_code=False, **_SAFELY, **without, **modules)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def left_out(found: Any, index: Mapping[str, Any], modules: Collection[str]) -> dict[str, None]:
    """The components beside ``modules`` that a directory has not though the class takes them: its loader must be told.

    Raises InvalidFile where the index doesn't say so as diffusers reads it.
    """
    taken = inspect.signature(found).parameters.values()
    optional = {*of_diffusers.optional_components(found), *modules}
    names = [each.name for each in taken if each.default is each.empty and each.name not in optional]
    unsaid = [name for name in names if index.get(name) is None]
    if unsaid:
        raise InvalidFile(
            f"model_index.json lacks {', '.join(unsaid)}: fetch it again, or write "
            f'"{unsaid[0]}": [null, null] into it to run without.'
        )
    return {name: None for name in names if index[name] == [None, None]}


def check_installed(index: Mapping[str, Any]) -> None:
    """InvalidFile for a processor that transformers only has beside another package: diffusers' own words name none."""
    import transformers

    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or entry[:1] != ["transformers"]:
            continue
        try:
            found = getattr(transformers, entry[1], None)
            hasattr(found, "from_pretrained")
        except ImportError as error:
            reason = str(error).strip().split(". ")[0].splitlines()[0]
            raise InvalidFile(f"component {name!r}: {reason}; install that package.") from None
        if _has_video_processor(found) and not transformers.utils.is_torchvision_available():
            raise InvalidFile(
                f"component {name!r}: {entry[1]} needs torchvision, also for pictures alone; install that package."
            )


def _has_video_processor(found: object) -> bool:
    """Whether it holds a processor of videos, of which transformers has none without torchvision."""
    return isinstance(found, type) and "video_processor" in inspect.signature(found.__init__).parameters  # type: ignore[misc]


def _cast(module: torch.nn.Module, dtype: torch.dtype, facts: ClassFacts) -> None:
    """Gives every floating tensor of the state the dtype it has after loading: float32 where the class keeps it."""
    kept = set(facts.keep_in_float32 if dtype in (torch.float16, torch.bfloat16) else ())
    kept |= set(facts.keep_in_float32_for_float16 if dtype == torch.float16 else ())
    for path, owner in module.named_modules():
        tables: list[tuple[Any, Collection[str], bool]] = [
            (parameters_of(owner), (), True),
            (buffers_of(owner), unfiled_names(owner), False),
        ]
        for tensors, hidden, parameters in tables:
            for name, tensor in tensors.items():
                if tensor is None or name in hidden or not tensor.is_floating_point():
                    continue
                wanted = torch.float32 if kept & {*path.split("."), name} else dtype
                if tensor.dtype == wanted:
                    continue
                # Nobody has filled parameters, and what nobody writes to takes no memory.
                cast = torch.empty_like(tensor, dtype=wanted) if parameters else tensor.detach().to(wanted)
                tensors[name] = torch.nn.Parameter(cast, False) if parameters else cast


@contextlib.contextmanager
def bounded_modules(most: int = _MODULES_OF_ANY) -> Iterator[None]:
    """Ends a build that a config makes absurdly large: the weight files say about how many modules there can be."""
    left = most

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("its config describes far more modules than its files have weights")

    handle = torch.nn.modules.module.register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def kept_default_dtype(meanwhile: torch.dtype | None = None) -> Iterator[None]:
    """Gives torch's default dtype back at the end, ``meanwhile`` another: a failed load of diffusers leaves its own."""
    before = torch.get_default_dtype()
    if meanwhile is not None:
        torch.set_default_dtype(meanwhile)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _no_init() -> Iterator[None]:
    with of_diffusers.without_initial_weights(), of_transformers.without_initial_weights():
        yield


# A component with random weights: real computation at a model's real size, without its files.


def random_component(
    name: str,
    described: Described,
    model_dir: Path,
    *,
    class_facts: Mapping[str, ClassFacts],
    device: str,
    seed: int = 0,
) -> torch.nn.Module:
    """The component in host memory, with the shapes and dtypes of a loaded one and random values made on ``device``.

    ``model_dir`` needs only the configs; ``device`` holds one weight at a time. Raises InvalidFile for a config that
    the class can't use.
    """
    module = build_component(name, described, model_dir, class_facts.get(described.class_name, ClassFacts()))
    fill_randomly(module, torch.Generator(device).manual_seed(seed ^ zlib.crc32(name.encode())))
    return module


def fill_randomly(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Overwrites every weight with values made on the generator's device.

    Matrices keep the variance of their input, scales are near one, offsets near nothing.
    """
    with torch.no_grad():
        for name, weight in module.named_parameters():
            fan_in = weight[0].numel() if weight.ndim > 1 else 1
            if fan_in > 1:
                mean, deviation = 0.0, fan_in**-0.5
            else:
                mean, deviation = 1.0 if name.endswith(("weight", "gamma")) else 0.0, 0.1
            values = torch.empty(weight.shape, dtype=weight.dtype, device=generator.device)
            weight.copy_(values.normal_(mean, deviation, generator=generator))
