"""A model: its components, files and classes, and what is known of its family. Unknown is None."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add
from typing import Literal

from roost.facts.limits import Bytes, Names, Sha256, Texts
from roost.facts.request import Group, Mode, Role, Storage, Workload
from roost.facts.weight_files import Recipe, WeightFile

Kind = Literal["dit", "text_encoder", "image_encoder", "vae", "other"]
ModelSource = Literal["directory", "name", "memory"]
Task = Literal["image", "video"]
Makes = Literal["image", "video", "audio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A repeated list of blocks, by its canonical module name, with the bytes of each block at the load dtype.

    With ``leaves``, the names of layers that every block has, each layer of each block is a block of its own here.
    """

    name: str
    block_bytes: tuple[int, ...]
    leaves: tuple[str, ...] = field(default=(), repr=False)
    # Beside them in a buffer of each block: gaps that align tensors, and buffers of no file; empty when nobody counted.
    extra_bytes: tuple[int, ...] = field(default=(), compare=False, repr=False)
    # Of each block, what no file has as it loads: in host memory even where the rest of it stays in files.
    kept_bytes: tuple[int, ...] = field(default=(), compare=False, repr=False)

    @property
    def count(self) -> int:
        return len(self.block_bytes)

    @property
    def bytes(self) -> int:
        return sum(self.block_bytes)

    def has_leaves(self, leaves: Collection[str]) -> bool:
        """Whether it has all of these, and there are any."""
        return bool(leaves) and {*leaves} <= {*self.leaves}

    def of_leaves(self, leaves: Sequence[str]) -> Stack:
        """The same with only these of its leaves, in this order."""
        width, kept = len(self.leaves), [self.leaves.index(leaf) for leaf in leaves]
        numbers = [block + leaf for block in range(0, self.count, width or 1) for leaf in kept]

        def of(values: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(values[number] for number in numbers) if values else ()

        return replace(
            self,
            block_bytes=of(self.block_bytes),
            leaves=tuple(leaves),
            extra_bytes=of(self.extra_bytes),
            kept_bytes=of(self.kept_bytes),
        )

    def with_more(self, more: Iterable[int]) -> Stack:
        """The same with so much more in each block, which no file has."""
        added, none = tuple(more), (0,) * self.count
        return replace(
            self,
            extra_bytes=tuple(map(add, self.extra_bytes or none, added)),
            kept_bytes=tuple(map(add, self.kept_bytes or none, added)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file that a component's weights come from, in place of the model's own. Source: its header.

    ``path`` is absolute; of the model's ``own`` file, whose 8 bits stay as stored, it is relative to its directory.
    ``format`` is its container and the key of how most of its weights are stored, as ``gguf Q4_K``. ``fingerprint`` is
    the hash of the header, ``bytes`` the file's size. ``plain_bytes`` are those that the same weights take unpacked.
    """

    path: str
    format: str
    fingerprint: Sha256
    bytes: Bytes
    plain_bytes: Bytes | None = None
    own: bool = False

    @property
    def container_and_key(self) -> tuple[str, str]:
        """``gguf`` or ``safetensors``, and a key of ``facts/weight_formats``."""
        container, _, key = self.format.partition(" ")
        return container, key


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One entry of ``model_index.json`` with weights. Source: file headers and configs, never tensor data.

    ``bytes`` are the payload of the files that its library would load; ``load_…`` and all stacks are at ``load_dtype``.
    ``units`` are what streams: ``stacks``, the outermost repeated lists, with oversized blocks split; ``leaves`` are
    the same below their blocks, empty where that can't be. ``use_order`` are the numbers of their blocks in order of
    use, where stacks take turns; empty where one runs after another.
    """

    name: str
    library: str | None
    class_name: str
    position: int  # in model_index.json
    files: tuple[str, ...]  # relative to the model directory, with forward slashes
    variant: str | None
    bytes: int
    bytes_by_dtype: Mapping[str, int]
    tensors: int | None  # None for pickled files, which are sized but never opened
    load_dtype: str | None  # a torch dtype's name, like bfloat16
    load_bytes: int
    stacks: tuple[Stack, ...]
    units: tuple[Stack, ...]
    leaves: tuple[Stack, ...] = field(default=(), compare=False, repr=False)
    use_order: tuple[int, ...] = field(default=(), compare=False, repr=False)
    quantization: str | None  # the method that config.json names, or the files' headers show
    storage: Storage | None = None  # of linear weights in blocks, where the sizes are of such a copy; never of a file
    stopped: str | None = None  # why this version can't run it as it is quantised, in words
    unsought: bool = False  # its library would not look for its files by itself
    lora: Literal["fused", "beside"] | None = None  # how its weights are had with LoRAs
    extra_bytes: int = 0  # beside ``load_bytes`` in the buffers of all units and the trunk; see ``Stack``
    kept_bytes: int = 0  # of all units and the trunk, what no file has as it loads; see ``Stack``
    stream_bytes: int | None = None  # where its files' 8 bits can stay so, and load bytes are of what they are cast to
    source: FileSource | None = None  # of weights that aren't the model's own, or are kept as its file stores them
    quantization_detail: Mapping[str, object] | None = None  # formats and scales, as ``inspect --json`` gives them
    notes: tuple[str, ...] = ()  # tied or unused weights, uncertain facts, unsupported formats

    @property
    def leaf_level(self) -> bool:
        """Whether ``units`` are layers below the blocks."""
        return any(unit.leaves for unit in self.units)

    @property
    def trunk_bytes(self) -> int:
        """Load-dtype bytes outside every stack."""
        return self.load_bytes - sum(stack.bytes for stack in self.stacks)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """What the fingerprint covers of one file: its size, and the hash of its header or, for a config, of all of it."""

    bytes: Bytes
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """A safetensors file without its data: the header's JSON text, and how many bytes of data follow it."""

    header: bytes
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """A published model directory by its name, all but the weights' values. Source: profiles/families/NAME.json.

    File names are relative, with forward slashes. ``documents`` are what decides an inventory, configs and indexes;
    ``tokenizers`` are small stand-ins.
    """

    name: str
    source: str  # hub id
    documents: Mapping[str, bytes]
    tokenizers: Mapping[str, bytes]
    weights: Mapping[str, WeightsFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFile:
    """A file that was given for a component, and how the component is made of it."""

    file: WeightFile
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a model holds that lies in a directory, is known by its name alone, or is a pipeline in memory.

    ``path`` is a directory's, else None. Of a model known by its name ``fingerprint`` is the structure that any copy
    shares. ``given`` are the files that replace components' own, by component; fingerprint and ``files`` leave such
    components' weights out.
    """

    path: str | None
    source: ModelSource = "directory"
    layout: Literal["diffusers", "modular", "component", "single-file"]
    pipeline: str | None  # class name
    family: str | None  # key of the model profile that recognised it
    scalars: Mapping[str, object]  # plain config entries of model_index.json, such as boundary_ratio
    components: tuple[Component, ...]
    weightless: tuple[str, ...]  # scheduler, tokenizers, processors
    absent: tuple[str, ...]  # entries that are null
    custom: tuple[str, ...]  # entries that name code inside the directory; reported, never run
    files: Mapping[str, StoredFile]
    fingerprint: str
    warnings: tuple[str, ...] = ()
    bare: Mapping[str, str] = field(default_factory=dict)  # weightless entries whose files aren't there -> class
    given: Mapping[str, GivenFile] = field(default_factory=dict, compare=False, repr=False)

    def component(self, name: str) -> Component:
        return next(each for each in self.components if each.name == name)

    @property
    def load_bytes(self) -> int:
        return sum(each.load_bytes for each in self.components)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """A family's facts: how it is recognised, its default workload and what the rules read.

    Source: profiles/models/KEY.yaml. ``match`` maps paths such as ``index._class_name`` or ``transformer.dim`` to
    conditions; the profile matches when all hold, and the one with the most conditions wins.
    """

    key: str
    title: str
    task: Task
    match: Mapping[str, object]
    workload: Workload
    keep_resident_free_gib: float
    keep_resident_groups: tuple[Group, ...]
    dit_layerwise_prefetch: Mapping[Mode, int]  # mode in which the DiT streams by default -> blocks ahead
    fsdp: bool
    load_dtypes: Mapping[str, str]  # component base name -> dtype that replaces the default one
    chunked_vae: bool  # its VAE runs many passes per decode, so blocks are held rather than streamed
    guidance_argument: str  # the pipeline call's parameter that --guidance sets
    role_extras: Mapping[str, tuple[str, ...]]  # role -> modules it needs beyond its own
    frame_chunk: int  # its videos are whole chunks of so many frames and one more; 1: of any length
    frames_per_s: int  # at which its publisher plays its videos
    sizes: tuple[tuple[int, int], ...] = ()  # that it was trained at, where its publisher says so
    plan_only: bool  # no pipeline class in diffusers: inspect and plan, not run


# The profile of a family by a pipeline's index and its components' configs.
Recognise = Callable[[Mapping[str, object], Mapping[str, Mapping[str, object]]], ModelProfile | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFacts:
    """What a library's model class does when it loads. Source: generated from the installed libraries.

    ``renames`` are (pattern, replacement) regular expressions from a file's tensor names to module names.
    """

    keep_in_float32: tuple[str, ...] = ()  # module names kept whenever a half precision is asked
    keep_in_float32_for_float16: tuple[str, ...] = ()  # only when float16 is asked
    ignored: tuple[str, ...] = ()  # patterns of stored tensors that the class drops
    renames: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineFacts:
    """What a pipeline class's call takes and makes, and its defaults. Source: generated from diffusers."""

    makes: Makes = "image"
    prompt: bool = True  # whether it takes one
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    steps: int | None = None
    strength: float | None = None  # of a class that runs fewer of its steps by it
    needs: tuple[str, ...] = ()  # pictures and videos without which it fails, by the call's argument


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePart:
    """What a deployment role would load of the model. ``loads`` have weights; ``keeps`` are weightless modules."""

    name: Role
    stages: Names
    loads: Names
    keeps: Names
    skips: Names
    load_bytes: Bytes
    warnings: Texts
