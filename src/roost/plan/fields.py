"""What all records of a plan are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Bytes = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Flops = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$", max_length=1024)]
LoadDtype = Annotated[str, Field(pattern="^(bfloat16|float16|float32)$")]
Name = Annotated[str, Field(min_length=1, max_length=256)]
ComponentName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$", max_length=256)]
Label = Annotated[str, Field(min_length=1)]  # made of names, as many as a model or a command line has


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Masters(Strict):
    """How many of the component's blocks keep their host copy in each tier."""

    pinned: Count
    pageable: Count
    mapped: Count
