"""What all records of a plan are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator

from roost.facts.limits import Bytes, Name, Positive
from roost.facts.model import Stack
from roost.facts.resident_policy import RESIDENT_POLICY

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Flops = Annotated[int, Field(ge=0)]
RelativePath = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$", max_length=1024)]
PolicyText = Annotated[str, Field(pattern=RESIDENT_POLICY)]
LoadDtype = Annotated[str, Field(pattern="^(bfloat16|float16|float32)$")]
ComponentName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$", max_length=256)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class _Fact:
    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        schema = handler(source)
        of_class: Any = handler.resolve_ref_schema(schema)
        # Strict records take a mapping for a record, but not for a dataclass; and a dataclass came unchecked.
        of_class.update(strict=False, revalidate_instances="always")
        return schema


FACT = _Fact()  # annotates a field of a record that holds a dataclass: as strict as the record is


class Masters(Strict):
    """How many of the component's blocks keep their host copy in each tier."""

    pinned: Count
    pageable: Count
    mapped: Count


class StackRecord(Strict):
    """``count`` blocks below the module ``name``. With ``leaves`` these are the layers of that name of every block.

    ``largest_bytes`` is unknown of plans that earlier versions wrote.
    """

    name: Name
    count: Positive
    bytes: Bytes
    largest_bytes: Bytes | None = None
    leaves: list[Name] = Field(default_factory=list)

    @model_validator(mode="after")
    def _leaves_are_of_whole_blocks(self) -> StackRecord:
        if self.leaves and (self.count % len(self.leaves) or len(set(self.leaves)) < len(self.leaves)):
            raise ValueError(f"{len(self.leaves)} leaves of each block don't make {self.count} different ones")
        return self

    @property
    def slot_bytes(self) -> int:
        """What a slot for any of its blocks takes."""
        return self.bytes // self.count if self.largest_bytes is None else self.largest_bytes

    @property
    def stack(self) -> Stack:
        """The stack, of whose blocks only the number is known."""
        return Stack(name=self.name, block_bytes=(0,) * self.count, leaves=tuple(self.leaves))
