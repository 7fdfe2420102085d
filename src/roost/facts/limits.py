"""What a fact may be where one is read from a file. Facts load no pydantic, so these speak its protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated


class Limited:
    """An annotation with limits in the words of pydantic's core schemas."""

    def __init__(self, **limits: object) -> None:
        self.limits = limits

    def __get_pydantic_core_schema__(
        self, source: object, handler: Callable[[object], dict[str, object]]
    ) -> dict[str, object]:
        return {**handler(source), **self.limits}


Bytes = Annotated[int, Limited(ge=0, lt=2**63)]
Positive = Annotated[int, Limited(ge=1, lt=2**31)]
Name = Annotated[str, Limited(min_length=1, max_length=256)]
Label = Annotated[str, Limited(min_length=1)]  # made of names, as many as a model or a command line has
Names = Annotated[tuple[Name, ...], Limited(strict=False)]  # a list where it is read
Texts = Annotated[tuple[str, ...], Limited(strict=False)]
Sha256 = Annotated[str, Limited(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Limited(allow_inf_nan=False)]
Share = Annotated[float, Limited(gt=0, le=1)]
