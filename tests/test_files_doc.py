"""What docs/files.md shows is what the commands print, and its table of formats is the source's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from field_files import flux_files, sdxl_checkpoint
from given_files_matrix import FAMILIES, FORMATS
from quantised_files import of_linears
from roost.cli.app import run
from roost.facts.weight_formats import WEIGHT_FORMATS, WeightFormat
from sparse_files import shapes_of, sparse_gguf, sparse_safetensors

TEXT = (Path(__file__).parents[1] / "docs" / "files.md").read_text(encoding="utf-8")
# A command and what stands below it in the same block.
SHOWN = dict(re.findall(r"^    \$ roost (.*)\n((?:    [^$\n].*\n)+)", TEXT, flags=re.MULTILINE))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "ComfyUI" / "models"
    sparse_gguf(tmp_path / "sd3.5_large-Q4_0.gguf", shapes_of("sd3.5-large"), "Q4_0", "sd3")
    sparse_gguf(models / "unet" / "hunyuan-video-Q4_0.gguf", shapes_of("hunyuanvideo"), "Q4_0", "hyvid")
    high = models / "diffusion_models" / "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
    sparse_safetensors(high, shapes_of("wan2.2-i2v-a14b"), "F8_E4M3", scale="scale_weight")
    t5 = shapes_of("wan2.2-i2v-a14b", "text_encoder", "diffusers")
    sparse_safetensors(models / "text_encoders" / "umt5_xxl_fp16.safetensors", t5, "F16")
    vae = sparse_safetensors(models / "vae" / "wan_2.1_vae.safetensors", shapes_of("wan2.2-i2v-a14b", "vae"))
    (models / "vae" / "half.safetensors").write_bytes(vae.read_bytes()[: 64 * 1024])
    flux_files(tmp_path)
    sdxl_checkpoint(tmp_path / "sd_xl_base_1.0.safetensors")
    (tmp_path / "rotated.safetensors").write_bytes(of_linears("convrot_w4a4"))


@pytest.mark.parametrize("command", SHOWN)
def test_a_screen_of_the_document_is_what_the_command_prints(command: str, disk: None, capsys) -> None:
    assert run(command.split()) == 0
    assert [f"    {line}".rstrip() for line in capsys.readouterr().out.splitlines()] == [
        line.rstrip() for line in SHOWN[command].splitlines()
    ]


def test_the_document_shows_screens() -> None:
    assert len(SHOWN) >= 3


def test_the_table_of_formats_is_the_sources() -> None:
    rows = [row(each) for each in WEIGHT_FORMATS.values() if each.title != each.key]
    assert "\n".join(rows) in TEXT


def test_the_table_of_what_was_tried_has_every_format_and_family() -> None:
    begin, end = "<!-- formats and families: begin -->\n", "<!-- formats and families: end -->"
    lines = TEXT.split(begin)[1].split(end)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["format", *FAMILIES]
    assert [each[0] for each in cells[2:]] == list(FORMATS)
    assert {cell for each in cells[2:] for cell in each[1:]} == {"yes / yes / yes / yes"}


def row(each: WeightFormat) -> str:
    return f"| `{each.key}` | {each.title} | {'yes' if each.runs else f'no: it {each.why}'} | {each.instead or ''} |"
