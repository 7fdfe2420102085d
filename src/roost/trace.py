"""What a dry run recorded: every use of a component in order, with its work and its memory. Pure; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

from roost.errors import InvalidFile
from roost.facts.request import Workload

OpClass = Literal["matmul", "attention", "conv", "elementwise"]
VaeSetting = Literal["tiled", "sliced", "tiled slices"]

OP_CLASSES: tuple[OpClass, ...] = ("matmul", "attention", "conv", "elementwise")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpClassTotals:
    """Work of one class of operations. A multiply-add is 2 FLOPs; bytes are what the operations read and write."""

    flops: int = 0
    bytes: int = 0
    kernels: int = 0


Totals = Mapping[OpClass, OpClassTotals]  # has every class


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationBytes:
    """Peaks of what one use allocates beyond weights and inputs, in its parts; 0 for a part that it lacks."""

    before_blocks: int
    in_blocks: int
    after_blocks: int

    @property
    def peak_bytes(self) -> int:
        return max(self.before_blocks, self.in_blocks, self.after_blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTrace:
    """One block in one use: the sum over its ``calls``, and the most bytes live in the whole component meanwhile."""

    name: str  # of a unit that streams, as ``blocks.block_names`` gives it
    calls: int
    totals: Totals
    activation_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionWork:
    """One kind of fused attention in one use: mask, width of a head and dtype decide which kernels can compute it."""

    masked: bool
    head_width: int
    dtype: str
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UseTrace:
    """One call of a component's entry with one signature; all figures are per call, blocks' work included.

    ``blocks`` are in the order of their first call. ``compute_dtype`` is the dtype of most of the FLOPs. Weights whose
    dtype the pipeline changed for the call (SDXL's VAE) take ``recast_bytes`` more than as they are loaded.
    ``attention`` are the kinds that make up the attention of ``totals``. ``form`` is what the call was given, by dtypes
    and shapes: empty where that can't be described, None where nobody noted it.
    """

    component: str
    method: str
    signature: str  # shapes and dtypes of the inputs, to be read by people and compared for equality
    totals: Totals
    activation_bytes: ActivationBytes
    input_bytes: int
    output_bytes: int
    compute_dtype: str | None
    blocks: tuple[BlockTrace, ...]
    recast_bytes: int = 0
    attention: tuple[AttentionWork, ...] = ()
    form: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def flops(self) -> int:
        return sum(each.flops for each in self.totals.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeVariant:
    """The same use with tiling or slicing switched on. ``use`` is its index in ``Trace.uses``."""

    use: int
    setting: VaeSetting
    trace: UseTrace


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLinears:
    """The weights of one block's linear layers that could be stored in 8 bits, at the load dtype."""

    block: str
    bytes: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearWeights:
    """A component's linear weights in half precision, block by block. ``largest_bytes`` is the largest layer's."""

    component: str
    largest_bytes: int
    blocks: tuple[BlockLinears, ...]

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfiledBuffers:
    """Buffers of a component that no file holds, such as tables of rotations: what they add to the units' buffers.

    ``block_bytes`` names the blocks that have any.
    """

    component: str
    trunk_bytes: int
    block_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleTensors:
    """Names and shapes of what a component's module takes from its files.

    ``spare`` are names that files may lack: those of tied weights, of which one is enough.
    """

    component: str
    shapes: Mapping[str, tuple[int, ...]]
    spare: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The distinct uses of one generation, and their order as (index into ``uses``, consecutive calls).

    ``no_dry_run`` is the reason when nothing was recorded and the figures are guessed from sizes. ``uncached`` are
    components whose step caches the dry run left off. ``kept_bytes`` are what a caching allocator that has room keeps
    beyond the most activations: what smaller ones left can't hold larger ones.
    """

    uses: tuple[UseTrace, ...]
    sequence: tuple[tuple[int, int], ...]
    variants: tuple[VaeVariant, ...]
    workload: Workload
    source: str  # "dry-run"
    seconds: float  # that the dry run took
    versions: Mapping[str, str]  # of the libraries that ran it
    linears: tuple[LinearWeights, ...] = ()
    unfiled: tuple[UnfiledBuffers, ...] = ()
    tensors: tuple[ModuleTensors, ...] = ()  # of components whose files are loaded name by name
    no_dry_run: str | None = None
    uncached: tuple[str, ...] = ()
    kept_bytes: int = 0

    def linears_of(self, component: str) -> LinearWeights | None:
        """What of the component could be stored in 8 bits; None when nobody looked."""
        return next((each for each in self.linears if each.component == component), None)

    def calls(self, use: int) -> int:
        """How often ``uses[use]`` runs in one generation."""
        return sum(count for index, count in self.sequence if index == use)

    def ordered_uses(self) -> Iterator[UseTrace]:
        """Every call of the generation in its order."""
        for index, count in self.sequence:
            for _ in range(count):
                yield self.uses[index]

    def variant(self, use: int, setting: VaeSetting) -> UseTrace | None:
        """``uses[use]`` under a VAE setting; None when the component has no such setting."""
        return next((each.trace for each in self.variants if (each.use, each.setting) == (use, setting)), None)

    def sliced(self, components: Iterable[str]) -> Trace:
        """The trace with slicing on for ``components``, where the dry run measured it; tiles are then of slices."""
        wanted = set(components)
        runs = [
            (use, self.variant(index, "sliced") if use.component in wanted else None)
            for index, use in enumerate(self.uses)
        ]
        now_sliced = {index for index, (_, run) in enumerate(runs) if run}
        of_slices = {each.use: each for each in self.variants if each.setting == "tiled slices"}
        variants = (
            replace(of_slices[each.use], setting=each.setting)
            if each.setting == "tiled" and each.use in now_sliced and each.use in of_slices
            else each
            for each in self.variants
        )
        return replace(self, uses=tuple(run or use for use, run in runs), variants=tuple(variants))


def trace_to_json(trace: Trace) -> dict[str, Any]:
    """The trace as plain JSON values; ``trace_from_json`` gives it back, equal."""
    return asdict(trace)


def trace_from_json(document: object) -> Trace:
    """The trace of a parsed JSON document; raises InvalidFile for anything that ``trace_to_json`` doesn't write."""
    try:
        trace = _trace(cast(dict[str, Any], document))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidFile(
            f"this is not a trace of a dry run ({type(error).__name__}: {error}); trace the model again."
        ) from None
    indices = {index for index, _ in trace.sequence} | {each.use for each in trace.variants}
    if any(not 0 <= index < len(trace.uses) for index in indices):
        raise InvalidFile("this trace names a use that it doesn't have; trace the model again.")
    return trace


def _trace(document: dict[str, Any]) -> Trace:
    return Trace(
        uses=tuple(_use(each) for each in document["uses"]),
        sequence=tuple((int(index), int(count)) for index, count in document["sequence"]),
        variants=tuple(
            VaeVariant(use=each["use"], setting=each["setting"], trace=_use(each["trace"]))
            for each in document["variants"]
        ),
        workload=Workload(**document["workload"]),
        source=document["source"],
        seconds=float(document["seconds"]),
        versions={str(library): str(version) for library, version in document["versions"].items()},
        linears=tuple(_linears(each) for each in document["linears"]),
        unfiled=tuple(UnfiledBuffers(**each) for each in document["unfiled"]),
        tensors=tuple(_tensors(each) for each in document["tensors"]),
        no_dry_run=document.get("no_dry_run"),
        uncached=tuple(document.get("uncached", ())),
        kept_bytes=int(document.get("kept_bytes", 0)),
    )


def _tensors(entry: dict[str, Any]) -> ModuleTensors:
    shapes = {str(name): tuple(map(int, shape)) for name, shape in entry["shapes"].items()}
    return ModuleTensors(component=entry["component"], shapes=shapes, spare=tuple(entry["spare"]))


def _linears(entry: dict[str, Any]) -> LinearWeights:
    return LinearWeights(**{**entry, "blocks": tuple(BlockLinears(**each) for each in entry["blocks"])})


def _use(entry: dict[str, Any]) -> UseTrace:
    parts = {
        "totals": _totals(entry["totals"]),
        "activation_bytes": ActivationBytes(**entry["activation_bytes"]),
        "blocks": tuple(BlockTrace(**{**each, "totals": _totals(each["totals"])}) for each in entry["blocks"]),
        "attention": tuple(AttentionWork(**each) for each in entry.get("attention", ())),
    }
    return UseTrace(**{**entry, **parts})


def _totals(entry: dict[str, Any]) -> Totals:
    return {name: OpClassTotals(**entry[name]) for name in OP_CLASSES}


def of_role(trace: Trace, names: Iterable[str]) -> Trace:
    """The trace without the uses of components that this role doesn't load."""
    loaded = set(names)
    kept = [index for index, use in enumerate(trace.uses) if use.component in loaded]
    place_of = {index: position for position, index in enumerate(kept)}
    return replace(
        trace,
        uses=tuple(trace.uses[index] for index in kept),
        sequence=tuple((place_of[index], count) for index, count in trace.sequence if index in place_of),
        variants=tuple(replace(each, use=place_of[each.use]) for each in trace.variants if each.use in place_of),
    )
