"""One generation with a held pipeline, measured and hashed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch

from roost.errors import DeviceLost, InvalidFile, RoostError, UsageError
from roost.foreign_words import tell_of_tiling
from roost.option_spelling import option
from roost.pipelines.calls import GenerationRequest
from roost.pipelines.quiet import quiet_libraries
from roost.pipelines.signatures import samples_per_s
from roost.pipelines.step_caches import forget_steps
from roost.residency.device.interface import Device
from roost.residency.engine.instance_attributes import set_attribute
from roost.residency.engine.nan_outputs import has_nan
from roost.residency.engine.rerun import out_of_memory_in
from roost.residency.engine.stages import StageRecord, StageRecorder
from roost.residency.hold.attach import Held
from roost.residency.run.blame import is_of_libraries
from roost.residency.run.calls import call_arguments

_OF_PICTURES = 4  # dimensions at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """``output`` is (batch, channel, height, width), or (batch, frame, channel, height, width) for video, 0 to 1.

    Sound is (batch, sample) or (batch, channel, sample), -1 to 1.

    Latents are as the pipeline has them, batch first.
    ``latent_digest`` is of what the VAE decoded; None when nothing was decoded.
    """

    output: torch.Tensor
    digest: str
    latent_digest: str | None
    seconds: float
    stages: tuple[StageRecord, ...]
    step_seconds: tuple[float, ...]  # from the second step on
    peak_bytes: int
    has_nan: bool = False  # the output
    nan_components: tuple[str, ...] = ()  # denoisers and VAEs that gave NaN
    samples_per_s: int | None = None  # of sound, where the pipeline's components say it


def generate(held: Held, request: GenerationRequest) -> Generation:
    """Calls the held pipeline once.

    Raises UsageError for a value that the pipeline has no parameter for or refuses before it uses a component,
    InvalidFile when the libraries fail on the model, OutOfMemory when the device's budget ends.
    """
    with _latent_digests(held) as latents, _nan_components(held) as nan:
        generation = generate_with(held.pipeline, held.recorder, held.device, held.runtime.end_call, request)
    return replace(generation, latent_digest=_joined(latents), nan_components=tuple(nan))


def generate_with(
    pipeline: Any, recorder: StageRecorder, device: Device, end_call: Callable[[], None], request: GenerationRequest
) -> Generation:
    """Calls any pipeline once; ``end_call``, before and after it, ends the recorder's generation too."""
    arguments = call_arguments(type(pipeline), request)
    began_s = time.perf_counter()
    with calling(pipeline, recorder, device, end_call, request.seed):
        output = _output_tensor(pipeline(**arguments))
    seconds = time.perf_counter() - began_s
    return Generation(
        output=output,
        digest=tensor_digest(output),
        latent_digest=None,
        seconds=seconds,
        stages=tuple(recorder.records),
        step_seconds=recorder.step_seconds,
        has_nan=has_nan(output),
        peak_bytes=max((stage.peak_bytes for stage in recorder.records), default=0),
        samples_per_s=samples_per_s(pipeline),
    )


@contextmanager
def calling(
    pipeline: Any, recorder: StageRecorder, device: Device, end_call: Callable[[], None], seed: int
) -> Iterator[None]:
    """Around one call of a pipeline: steps are reported, memory that runs out and refusals are named.

    Also what takes no generator draws from ``seed``, so that a call doesn't depend on those before it.
    """
    forget_steps(pipeline)
    with report_steps(pipeline, recorder), quiet_libraries(), _seeded(device.device, seed), _ending(end_call):
        try:
            with out_of_memory_in("the pipeline's call", device):
                yield
        except RoostError:
            raise
        except Exception as error:  # of any kind: library code raises it, steered by a model's configs
            explained = _explained(pipeline, error, began=recorder.began)
            if explained is None:
                raise
            raise explained from error


@contextmanager
def _ending(end_call: Callable[[], None]) -> Iterator[None]:
    """``end_call`` before and after; what it can't end any more on a lost device is not worth an error of its own."""
    end_call()
    try:
        yield
    except DeviceLost:
        with suppress(torch.AcceleratorError):
            end_call()
        raise
    except BaseException:
        end_call()
        raise
    end_call()


def _explained(pipeline: Any, error: Exception, *, began: bool) -> RoostError | None:
    """What to raise in place of the call's error; None where nobody but Roost may be to blame."""
    name, reason = type(pipeline).__name__, " ".join(str(error).split())[:300].rstrip(".")
    if isinstance(error, ValueError) and not began:  # pipelines check their arguments before they use a component
        return UsageError(f"{name} refuses the call: {reason}; change that option.")
    if isinstance(error, NotImplementedError):
        tiling = f"; plan with {option('set', 'vae=resident,tiling=true')}" if tell_of_tiling(error) else ""
        return UsageError(f"{name} can't do this: {reason or 'no reason given'}{tiling}.")
    if not is_of_libraries(error):
        return None
    return InvalidFile(
        f"{name} failed in its libraries' code: {type(error).__name__}: {reason or 'no reason given'}; check the"
        " model's configs and the plan's load_dtype. If diffusers alone runs this model, please report it."
    )


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _output_tensor(result: Any) -> torch.Tensor:
    """The pictures or videos of a pipeline's result: its first field, one tensor or a list of equal ones."""
    first = result[0]
    if isinstance(first, numpy.ndarray):  # of pipelines that know no tensors as output: channels last
        made = torch.from_numpy(first)
        return made.movedim(-1, -3) if made.ndim >= _OF_PICTURES else made
    if isinstance(first, list | tuple) and first and all(isinstance(each, torch.Tensor) for each in first):
        first = torch.stack(list(first))
    if not isinstance(first, torch.Tensor):
        raise RoostError(f"the pipeline gave a {type(first).__name__} instead of a tensor; Roost can't run it yet.")
    return first.detach().to("cpu")


@contextmanager
def _latent_digests(held: Held) -> Iterator[list[str]]:
    digests: list[str] = []
    away = {name: each.planned for name, each in held.away.items()}
    kinds = {name: each.kind for name, each in {**away, **held.plan.components}.items()}

    def observe(component: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if method == "decode" and kinds[component] == "vae":
            latents = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(latents, torch.Tensor):
                digests.append(tensor_digest(latents))

    held.runtime.observer = observe
    try:
        yield digests
    finally:
        held.runtime.observer = None


@contextmanager
def _nan_components(held: Held) -> Iterator[list[str]]:
    """The components that give NaN inside the context; they are told to nobody else."""
    found: list[str] = []
    before, held.runtime.on_nan = held.runtime.on_nan, found.extend
    try:
        yield found
    finally:
        held.runtime.on_nan = before


def _joined(digests: list[str]) -> str | None:
    """One digest for all that was decoded."""
    if len(digests) < 2:
        return digests[0] if digests else None
    return hashlib.sha256("|".join(digests).encode()).hexdigest()


# A pipeline's own progress bar, turned into events.


class _StepBar:
    """Takes the place of the tqdm that ``pipeline.progress_bar`` makes; other calls on it do nothing."""

    def __init__(self, iterable: Iterable[Any] | None, total: int | None, recorder: StageRecorder) -> None:
        self._iterable, self._recorder = iterable, recorder
        self._total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self._step = 0

    def update(self, count: int = 1) -> None:
        self._step += count
        self._recorder.step(self._step, self._total)

    def __iter__(self) -> Iterator[Any]:
        for each in () if self._iterable is None else self._iterable:
            yield each
            self.update()

    def __enter__(self) -> _StepBar:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_args, **_kwargs: None


@contextmanager
def report_steps(pipeline: Any, recorder: StageRecorder) -> Iterator[None]:
    """While open, the sampler's steps go to ``recorder`` and no bar is drawn."""

    def progress_bar(iterable: Iterable[Any] | None = None, total: int | None = None, **_: object) -> _StepBar:
        return _StepBar(iterable, total, recorder)

    with ExitStack() as undo:
        set_attribute(pipeline, "progress_bar", progress_bar, undo)
        yield


# What a tensor holds, as one hash.


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256 over ``dtype|shape|`` and the tensor's contiguous bytes, such as ``torch.float32|(1, 3, 64, 64)|…``."""
    digest = hashlib.sha256(f"{tensor.dtype}|{tuple(tensor.shape)}|".encode())
    # Of one element any stride counts as contiguous, and bytes need stride 1.
    values = tensor.detach().to("cpu").contiguous().as_strided((tensor.numel(),), (1,))
    digest.update(values.view(torch.uint8).numpy().data)  # little-endian on every platform with PyTorch wheels
    return digest.hexdigest()
