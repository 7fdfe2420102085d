"""Formats: recognised by header and markers, sized with their scales; what lacks its scales is never plain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from directories import safetensors, write
from gguf_files import gguf
from malformed_formats import MALFORMED_FORMATS
from quantised_files import FP8, INT8, LINEARS, SCALAR, K, N, filled, marker, of_linears
from roost.errors import InvalidFile
from roost.facts.weight_formats import WEIGHT_FORMATS, formats_that_stop, weight_format
from roost.probes.files.formats.summary import Quantisation, quantisation_of
from roost.probes.files.gguf.ggml_types import GGML_TYPES
from roost.probes.files.header_entries import DTYPE_BITS
from roost.probes.files.weights import read_weight_file

RUN = {
    *("float8-cast", "comfy-fp8-scaled", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fn_rowwise"),
    *("float8_e4m3fn_blockwise", "mxfp8", "nvfp4", "int8_tensorwise", "int8_blockwise", "bfl-fp8r", "bfl-nvfp4"),
    "int8_tensorwise+convrot",
}
MARKED = {key for key, (_, contents, _) in LINEARS.items() if "comfy_quant" in contents}


def of(content: bytes, folder: Path, name: str = "x.safetensors") -> Quantisation:
    return quantisation_of(read_weight_file(str(write(folder / name, content))), "files/x")


@pytest.mark.parametrize("key", LINEARS)
def test_a_format_is_recognised_and_counted_with_its_scales(key: str, tmp_path: Path) -> None:
    found = of(of_linears(key), tmp_path)
    bits = LINEARS[key][2]
    assert set(found.formats) == {key, "F32"}
    assert found.bits_per_weight == pytest.approx(bits, abs=0.0015)
    assert found.problems == ()
    assert found.runs == (key in RUN)
    assert (found.why_not() is None) == found.runs
    assert found.shapes == {
        "blocks.0.ff.weight": (N, K), "blocks.1.ff.weight": (N, K), "norm.weight": (K,)
    } or key == "sdnq"  # fmt: skip
    assert found.detail is not None
    assert found.detail["formats"][key]["tensors"] == 2  # type: ignore[index]
    if key in MARKED:
        assert found.method == f"comfy-quant {key}"
    json.dumps(found.detail)


def test_every_format_has_a_row_and_those_that_stop_say_what_would_work() -> None:
    assert set(LINEARS) <= set(WEIGHT_FORMATS)
    assert {each.name for each in GGML_TYPES.values()} <= set(WEIGHT_FORMATS)
    assert all(each.instead for each in formats_that_stop(WEIGHT_FORMATS))
    assert not weight_format("float3_of_2031").runs
    assert {key for key in LINEARS if weight_format(key).runs} == RUN


def test_the_runnable_ggml_types_are_those_that_diffusers_dequantises() -> None:
    pytest.importorskip("diffusers")
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    packed = {each.name for each in GGML_TYPES.values() if each.is_packed}
    theirs = {each.name for each in SUPPORTED_GGUF_QUANT_TYPES} & packed
    assert {name for name in packed if weight_format(name).runs} == theirs


def test_a_gguf_counts_each_tensor_under_its_own_type(tmp_path: Path) -> None:
    content = gguf({"a.weight": ("Q4_K", (4, 256)), "b.weight": ("Q6_K", (4, 256)), "n.weight": ("F32", (256,))})
    found = of(content, tmp_path, "x.gguf")
    assert (found.method, found.runs, found.formats) == ("gguf", True, ("F32", "Q4_K", "Q6_K"))
    assert found.bits_per_weight == 5.531
    assert found.detail == {
        "formats": {
            "F32": {"tensors": 1, "bytes": 1024, "bits_per_weight": 32.0},
            "Q4_K": {"tensors": 1, "bytes": 576, "bits_per_weight": 4.5},
            "Q6_K": {"tensors": 1, "bytes": 840, "bits_per_weight": 6.562},
        }
    }
    other = of(gguf({"a.weight": ("IQ2_XS", (4, 256))}), tmp_path, "y.gguf")
    assert not other.runs
    assert "IQ2_XS" in (other.why_not() or "")
    assert of(gguf({"a.weight": ("F16", (4, 256))}), tmp_path, "z.gguf").method is None


def test_embeddings_are_no_linear_weights(tmp_path: Path) -> None:
    tensors = {"shared.weight": ("BF16", (100, K)), "a.weight": FP8, "b.weight": ("BF16", (N, K))}
    assert of(safetensors(tensors), tmp_path).bits_per_weight == 12.0


@pytest.mark.parametrize("shape", [(0,), (2,)])
def test_the_old_marker_of_a_whole_file_is_empty_or_asks_for_full_precision(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    tensors = {"p.scaled_fp8": ("F32", shape), "p.a.weight": FP8, "p.a.scale_weight": SCALAR}
    found = of(safetensors(tensors), tmp_path)
    assert (found.method, found.formats, found.runs) == ("comfy-fp8-scaled", ("comfy-fp8-scaled",), True)
    assert (found.detail or {}).get("full_precision_matmul", False) == (shape == (2,))
    assert list(found.shapes) == ["p.a.weight"]


LACKING = {
    "a scale where others have one": {"a.weight": FP8, "a.scale_weight": SCALAR, "b.weight": FP8},
    "every scale, by the file's marker": {"scaled_fp8": ("F8_E4M3", (0,)), "b.weight": FP8},
    "a scale of a dtype that is one": {"b.weight": FP8, "b.weight_scale": ("I32", (N,))},
    "the scales of its codes": {"b.weight": INT8},
    "the method of its codes": {"b.weight": ("U8", (N, K // 2)), "b.scale": ("F32", (N,)), "b.zero_point": SCALAR},
    "the second scale": {"b.weight": ("U8", (N, K // 2)), "b.weight_scale": ("F8_E4M3", (N, K // 16))},
}


@pytest.mark.parametrize("name", LACKING)
def test_a_quantised_dtype_without_its_scales_is_a_problem_and_never_plain(name: str, tmp_path: Path) -> None:
    found = of(safetensors(LACKING[name]), tmp_path)
    (problem,) = found.problems
    assert problem.startswith("'b.weight' ")
    assert not found.runs
    assert found.method is not None
    assert problem in (found.why_not() or "")


def test_a_marker_without_its_scale_is_a_problem(tmp_path: Path) -> None:
    content = filled({"b.weight": FP8}, {"b.comfy_quant": marker("float8_e4m3fn")})
    assert of(content, tmp_path).problems == ("'b.weight' has no weight_scale",)


def test_metadata_alone_marks_layers(tmp_path: Path) -> None:
    layers = {"a": {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}, "b": {"format": "mxfp8"}}
    tensors = {
        "a.weight": FP8, "a.weight_scale": SCALAR, "b.weight": FP8, "b.weight_scale": ("U8", (N, K // 32)),
    }  # fmt: skip
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    found = of(filled(tensors, metadata=metadata), tmp_path)
    assert (found.method, found.formats) == ("comfy-quant float8_e4m3fn+mxfp8", ("float8_e4m3fn", "mxfp8"))
    formats = (found.detail or {})["formats"]
    assert formats["float8_e4m3fn"]["full_precision_matmul"] == 1  # type: ignore[index]
    assert formats["mxfp8"]["scales"] == ["block"]  # type: ignore[index]


def test_a_word_for_the_whole_file_marks_what_has_such_scales(tmp_path: Path) -> None:
    tensors = {"a.weight": FP8, "a.weight_scale": ("U8", (N, K // 32)), "n.weight": ("BF16", (K,))}
    found = of(filled(tensors, metadata={"quant_format": "mxfp8"}), tmp_path)
    assert (found.method, found.formats) == ("comfy-quant mxfp8", ("BF16", "mxfp8"))


def test_a_format_that_nobody_knows_is_counted_and_never_run(tmp_path: Path) -> None:
    content = filled({"a.weight": INT8, "a.weight_scale": SCALAR}, {"a.comfy_quant": marker("int3_of_2031")})
    found = of(content, tmp_path)
    assert (found.method, found.formats, found.runs) == ("comfy-quant int3_of_2031", ("int3_of_2031",), False)


def test_scales_in_the_tiles_of_kernels_are_right_too(tmp_path: Path) -> None:
    tensors = {"a.weight": ("F8_E4M3", (96, 96)), "a.weight_scale": ("U8", (128, 4))}
    assert of(filled(tensors, {"a.comfy_quant": marker("mxfp8")}), tmp_path).formats == ("mxfp8",)


def test_every_stored_dtype_has_a_format(tmp_path: Path) -> None:
    plain = {name: (name, (8,)) for name in DTYPE_BITS if name in ("BOOL", "U64", "C64", "F64", "I16", "U16")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("directories.ITEM_BITS", DTYPE_BITS)
        found = of(safetensors(plain), tmp_path)
    assert (found.runs, found.method, found.detail) == (True, None, None)


@pytest.mark.parametrize("name", MALFORMED_FORMATS)
def test_malformed_markers_and_scales_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    tensors, contents, metadata, reason = MALFORMED_FORMATS[name]
    with pytest.raises(InvalidFile, match=reason) as error:
        of(filled(tensors, contents, metadata), tmp_path)
    message = str(error.value)
    assert message.startswith("files/x can't be read as it is quantised: ")
    assert message.isprintable()
    assert len(message) < 500
