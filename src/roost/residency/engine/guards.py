"""Refuses what would give wrong pictures without a word while a plan holds a pipeline."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from roost.errors import RoostError
from roost.option_spelling import option
from roost.pipelines.formats.packed_tensors import dotted, parts_of
from roost.pipelines.internals.of_accelerate import HOOK
from roost.pipelines.internals.of_torch import RunningNorm, as_engine
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.instance_attributes import set_attribute, set_attributes
from roost.residency.weights.census import named_tensors
from roost.residency.weights.foreign import casts_weights, find_offloader

_LOG = logging.getLogger(__name__)

# Each of these would move weights behind the plan's back; some are accepted silently and then give wrong pictures.
_FORBIDDEN = (
    "to",
    "enable_model_cpu_offload",
    "enable_sequential_cpu_offload",
    "enable_group_offload",
    "remove_all_hooks",
    "reset_device_map",
)
_FORBIDDEN_OF_COMPONENT = ("enable_group_offload", "enable_layerwise_casting")


# What copy and pickle look for on an object itself: a copy would have the original's wrappers, and so its weights.
_COPYING = ("__getstate__", "__deepcopy__")


def forbid_copies(owner: Any, name: str, undo: ExitStack) -> None:
    """Makes copying and pickling ``owner`` an error; a module's parts too."""
    parts = owner.named_modules() if isinstance(owner, torch.nn.Module) else [("", owner)]
    refusals = [(part, functools.partial(_refuse_copy, f"{name}.{path}" if path else name)) for path, part in parts]
    set_attributes(((part, method, refuse) for part, refuse in refusals for method in _COPYING), undo)


def forbid_moves(pipeline: Any, undo: ExitStack) -> None:
    """Makes the pipeline's own ways of moving weights an error."""
    for method in _FORBIDDEN:
        if hasattr(pipeline, method):
            set_attribute(pipeline, method, functools.partial(_refuse, f"pipeline.{method}"), undo)
    forbid_copies(pipeline, "the pipeline", undo)


def guard_component(component: HeldComponent, undo: ExitStack) -> None:
    """Makes a component's own ways of moving or changing weights an error, and copies; and saving it right."""
    for method in _FORBIDDEN_OF_COMPONENT:
        if hasattr(component.module, method):
            set_attribute(component.module, method, functools.partial(_refuse, f"{component.name}.{method}"), undo)
    forbid_copies(component.module, component.name, undo)
    _read_state_from_masters(component, undo)


def check_components_stay(pipeline: Any, components: Mapping[str, HeldComponent]) -> None:
    """RoostError where the pipeline has another component than the one that is held."""
    for name, component in components.items():
        if getattr(pipeline, name, component.module) is not component.module:
            raise RoostError(
                f"pipeline.{name} was replaced while a Roost plan holds the pipeline, and nobody would move the new "
                "one's weights; detach the plan, replace it, and attach again."
            )


def check_held(component: HeldComponent) -> None:
    """RoostError when the weights are gone, or something else has begun to move or convert them since it is held."""
    if component.gone:
        raise RoostError(
            f"{component.name} is used again after the plan has given its host memory back; plan with"
            f" {option('generations', 2)}, which keeps it."
        )
    found = find_offloader(component.attributes, held=True)
    if found is None and HOOK not in component.attributes[0]:
        found = "the removal of its hooks"
    if found is None and not component.casts and casts_weights(component.attributes):
        found = "diffusers' layerwise casting"
    if found is not None:
        raise RoostError(
            f"{component.name} has met {found} while a Roost plan holds it; detach the plan, and use one of the two."
        )


class OneThread:
    """Lets one thread at a time into a runtime, as often as that one likes."""

    def __init__(self) -> None:
        self._running = 0  # outermost calls; two when one component calls another
        self._thread: int | None = None
        self._entering = threading.Lock()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Raises RoostError where another thread is inside."""
        with self._entering:
            if self._running and self._thread != threading.get_ident():
                raise RoostError("another thread is running this pipeline; call it from one thread at a time.")
            self._thread = threading.get_ident()
            self._running += 1
        try:
            yield
        finally:
            with self._entering:
                self._running -= 1


class Inference:
    """What calls into components run in: nothing of Roost's holds where gradients are computed."""

    def __init__(self) -> None:
        self._told = False

    def around(
        self, component: HeldComponent, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> AbstractContextManager[object]:
        """``no_grad`` where gradients are on but not asked for, as in ``encode_prompt`` called alone, with one notice.

        RoostError for a call that would train: gradients would read weights that have left by then.
        """
        module = component.module
        context: AbstractContextManager[object] = nullcontext()
        if torch.is_grad_enabled():
            if module.training:
                raise RoostError(f"{component.name} is in training mode; call eval() on it, Roost only runs inference.")
            context = self._without_gradients(component, (*args, *kwargs.values()))
        if module.training and any(isinstance(part, RunningNorm) and part.training for part in component.parts):
            raise RoostError(
                f"{component.name} is in training mode, in which its running statistics change; call eval() on it."
            )
        return context

    def _without_gradients(
        self, component: HeldComponent, inputs: tuple[object, ...]
    ) -> AbstractContextManager[object]:
        trainable = any(parameter.requires_grad for parameter in component.module.parameters())
        # Weights that are always there, and want no gradients, let those of their inputs through.
        if (trainable or not component.resident) and _needs_gradients(inputs):
            raise RoostError(
                f"{component.name} was called with gradients enabled and an input that requires them; call it inside "
                "torch.no_grad() or with detached inputs, Roost only runs inference."
            )
        if not trainable:
            return nullcontext()
        if not self._told:
            self._told = True
            _LOG.warning(
                "%s was called with gradients enabled: while a Roost plan holds it, it runs as inside torch.no_grad().",
                component.name,
            )
        return torch.no_grad()


def _needs_gradients(values: Iterable[object]) -> bool:
    """Whether a tensor among ``values``, in lists and dictionaries too, requires gradients."""
    for value in values:
        if isinstance(value, torch.Tensor) and value.requires_grad:
            return True
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        if _needs_gradients(inner):
            return True
    return False


def weights_of(component: HeldComponent) -> Iterator[tuple[str, torch.Tensor]]:
    """The component's weights by name. A buffer that nobody had packed is something that the model keeps for itself."""
    packed = {id(each) for unit in component.units.values() for entry in unit.entries for each in entry.objects}
    for name, tensor in named_tensors(component.module):
        for suffix, part in parts_of(tensor):
            if isinstance(tensor, torch.nn.Parameter) or id(part) in packed:
                with as_engine():  # looking where a weight is must not bring it in
                    there = part.detach()
                yield dotted(name, suffix), there


def _refuse_copy(name: str, *_: object) -> None:
    raise RoostError(
        f"{name} can't be copied or pickled while a Roost plan holds the pipeline; detach the plan first, or save it "
        "with save_pretrained."
    )


def _refuse(method: str, *_: object, **__: object) -> None:
    raise RoostError(f"{method}() can't be used while a Roost plan holds the pipeline; detach the plan first.")


def _read_state_from_masters(component: HeldComponent, undo: ExitStack) -> None:
    """A component's state is on its masters between calls; while it runs it is not."""
    read: Any = component.module.state_dict

    def state_dict(*args: Any, **kwargs: Any) -> Any:
        if component.depth:
            raise RoostError(f"{component.name}.state_dict() can't be read while it runs; save it after the call.")
        return read(*args, **kwargs)

    set_attribute(component.module, "state_dict", state_dict, undo)
