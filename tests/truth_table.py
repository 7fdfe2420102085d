"""The truth table of the placement rules, as data: one row a case, read by the API test and the command-line test.

Strategies: L layerwise-offload, C component-offload, R resident, F fsdp. ``placed`` names groups of real components.
"""

from __future__ import annotations

from dataclasses import dataclass, field

L, C, R, F = "layerwise-offload", "component-offload", "resident", "fsdp"
HELPERS = ("text_encoder", "image_encoder", "vae")
ALL = ("dit", *HELPERS)
T2V, I2V, WAN14, WAN13, TI2V, FLUX, MOVA = (
    "wan2.2-t2v-a14b",
    "wan2.2-i2v-a14b",
    "wan2.1-t2v-14b",
    "wan2.1-t2v-1.3b",
    "wan2.2-ti2v-5b",
    "flux.1-dev",
    "mova",
)


@dataclass(frozen=True)
class Row:
    id: str
    models: tuple[str, ...]
    options: str
    groups: tuple[str, ...]
    placed: dict[str, str]
    also: dict[str, object] = field(default_factory=dict)
    target: str = "--gpu a100-80gb --vram 60GiB"


A14B = (T2V, I2V)


def _placed(dit: str, helpers: str = L, **changes: str) -> dict[str, str]:
    return {"dit": dit, "text_encoder": helpers, "image_encoder": helpers, "vae": helpers, **changes}


AT_40, AT_80 = "--gpu a100-80gb --vram 40GiB", "--gpu a100-80gb --vram 80GiB"

TABLE = (
    Row("1", A14B, "", ALL, _placed(L), {"prefetch": 2, "fired": {"WAN-DIT-LAYERWISE", "A14B-PREFETCH"}}),
    Row("2", (WAN14,), "", HELPERS, _placed(R), {"fired": {"KEEP-RESIDENT", "HELPERS-LAYERWISE"}}),
    Row("2b", (WAN14,), "", HELPERS, _placed(C), {"linger": True}, target=AT_40),
    Row("2c", (WAN14,), "", (), _placed(R, R), {"fired": {"ALL-RESIDENT"}}, target=AT_80),
    Row("3", (WAN13, WAN14, TI2V), "--mode memory", ALL, _placed(L), {"prefetch": 1}),
    Row("4", A14B, "--dit-cpu-offload", HELPERS, _placed(C), {"blocked": ("WAN-DIT-LAYERWISE", "--dit-cpu-offload")}),
    Row("5", A14B, "--no-dit-cpu-offload", HELPERS, _placed(R)),
    Row(
        "6",
        A14B,
        "--no-dit-layerwise-offload",
        HELPERS,
        _placed(C),
        {"blocked": ("WAN-DIT-LAYERWISE", "--no-dit-layerwise-offload")},
    ),
    Row("6b", (WAN14,), "--dit-layerwise-offload", ALL, _placed(L), {"prefetch": 1}, target=AT_40),
    Row("7", A14B, "--cache-dit", HELPERS, _placed(C), {"blocked": ("WAN-DIT-LAYERWISE", "--cache-dit")}),
    Row("7b", A14B, "--dmd-steps 4", HELPERS, _placed(C), {"blocked": ("WAN-DIT-LAYERWISE", "--dmd-steps 4")}),
    Row("7c-rocm", A14B, "--platform rocm", (), _placed(R, R)),
    Row("7c-cpu", A14B, "--platform cpu", (), _placed(R, R)),
    Row("8", A14B, "--fsdp --num-gpus 2", HELPERS, _placed(F), {"fired": {"FSDP-RESIDENT"}}),
    Row("9", A14B, "--vae-cpu-offload", ALL[:3], _placed(L, vae=C), {"prefetch": 2}),
    Row("10", A14B, "--no-vae-cpu-offload", ALL[:3], _placed(L, vae=R), {"prefetch": 2}),
    Row("10-set", A14B, "--set vae=resident", ALL[:3], _placed(L, vae=R), {"prefetch": 2}),
    Row("11", A14B, "--dit-offload-prefetch-size 4", ALL, _placed(L), {"prefetch": 4}),
    Row("12", A14B, "--layerwise-offload-components vae", ("vae",), _placed(C, C, vae=L)),
    Row("13", (MOVA,), "", HELPERS, {"dit": C, "text_encoder": L, "video_vae": L, "audio_vae": R}),
    Row("14", (T2V, WAN14, FLUX), "--mode manual", (), _placed(R, R)),
    Row(
        "16",
        (FLUX,),
        "--text-encoder-cpu-offload",
        ("image_encoder",),
        {"dit": R, "text_encoder": C, "vae": R},
        {"fired": {"KEEP-RESIDENT"}},
    ),
    Row("16b", (FLUX,), "", HELPERS, _placed(C), {"linger": True}, target=AT_40),
    Row("18", A14B, "", (), _placed(R, R), {"fired": {"ALL-RESIDENT"}}, target="--gpu h200"),
    Row("19", A14B, "--mode speed", (), _placed(R, R), {"fits": False}),
)

CASES = tuple((row, model) for row in TABLE for model in row.models)
