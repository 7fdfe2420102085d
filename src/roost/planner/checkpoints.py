"""How a component's files differ from what its modules will have."""

from __future__ import annotations

from roost.facts import Component

_STORED_NAMES = {
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


def cast_bytes(component: Component) -> int:
    """Stored bytes whose dtype isn't the one they load at."""
    if component.load_dtype is None:
        return 0
    if component.storage is not None:
        return component.bytes
    return sum(
        size
        for stored, size in component.bytes_by_dtype.items()
        if _STORED_NAMES.get(stored, component.load_dtype) != component.load_dtype
    )


def can_be_mapped(component: Component) -> bool:
    """Whether the checkpoint's bytes can serve as masters: safetensors that load as they are stored and named."""
    plain = component.tensors is not None and component.quantization is None and component.storage is None
    grows = component.load_bytes > component.bytes  # some modules load as float32 whatever is asked
    return plain and bool(component.files) and not component.renamed and not grows and not cast_bytes(component)
