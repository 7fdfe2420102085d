"""What a published diffusers repository is made of: the types the data in this folder is written in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

GB = 10**9
Dtype = Literal["F32", "BF16", "F16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One stored set of a component's weights: its dtype, and the size its publisher's files have."""

    dtype: Dtype
    published_gb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component with weights. `stored` maps a variant ("" for the plain files) to what it holds."""

    library: Literal["diffusers", "transformers"]
    class_name: str
    config: Mapping[str, Any]
    stored: Mapping[str, Weights]
    shard_bytes: int | None = None  # None: a single file, however large


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """The scheduler entry: its class in diffusers and what its configuration sets."""

    class_name: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One pipeline repository. `tokenizers` maps a folder to its class in transformers."""

    pipeline: str
    diffusers_version: str
    components: Mapping[str, Component]
    tokenizers: Mapping[str, str]
    scheduler: Scheduler
    scalars: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()  # listed as [null, null]
