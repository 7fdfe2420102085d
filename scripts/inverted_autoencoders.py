"""diffusers' converters of VAEs and UNets, inverted: see ``inverted_converters``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from roost.pipelines.formats.conversions.original_names import WAN_VAE_ENDS, WAN_VAE_RESIDUALS, Rule

WAN_VAE: Sequence[Rule] = (
    *WAN_VAE_ENDS,
    (r"^encoder\.down_blocks\.", "encoder.downsamples."),
    (
        r"^decoder\.up_blocks\.(\d)\.resnets\.(\d)",
        lambda found: f"decoder.upsamples.{4 * int(found[1]) + int(found[2])}",
    ),
    (r"^decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda found: f"decoder.upsamples.{4 * int(found[1]) + 3}"),
    *WAN_VAE_RESIDUALS,
)
_LTX_DOWN = {"resnets.": 0, "downsamplers.0.": 1, "conv_out.": 2}
_LTX_UP = {"conv_in.": -2, "upsamplers.0.": -1, "resnets.": 0}


def _ltx_down(found: re.Match[str]) -> str:
    """Levels of three, one after another in a single list; the last level has no way into a next one."""
    index = 3 * int(found[1]) + _LTX_DOWN[found[2]]
    return f"encoder.down_blocks.{index - (found[1] == '3')}." + ("resnets." if found[2] == "resnets." else "")


def _ltx_up(found: re.Match[str]) -> str:
    index = 3 * int(found[1]) + (1 if found[1] == "0" else 0) + _LTX_UP[found[2]]
    return f"decoder.up_blocks.{index}." + ("resnets." if found[2] == "resnets." else "")


_LTX_VAE_ENDS: Sequence[Rule] = (
    (r"^latents_mean$", "per_channel_statistics.mean-of-means"),
    (r"^latents_std$", "per_channel_statistics.std-of-means"),
    (r"\.resnets\.", ".res_blocks."),
    (r"\.norm3\.", ".norm3.norm."),
    (r"\.conv_shortcut\.conv\.", ".conv_shortcut."),
)
# Of 0.9.0; later ones have other levels.
LTX_VAE: Sequence[Rule] = (
    (r"^encoder\.down_blocks\.(\d)\.(resnets\.|downsamplers\.0\.|conv_out\.)", _ltx_down),
    (r"^decoder\.up_blocks\.(\d)\.(resnets\.|upsamplers\.0\.|conv_in\.)", _ltx_up),
    (r"^encoder\.mid_block\.", "encoder.down_blocks.9."),
    (r"^decoder\.mid_block\.", "decoder.up_blocks.0."),
    *_LTX_VAE_ENDS,
)
# Of 0.9.5 and later: levels of two, those on the way up begin with what makes them larger.
LTX_095_VAE: Sequence[Rule] = (
    (r"^encoder\.down_blocks\.(\d)\.resnets\.", lambda found: f"encoder.down_blocks.{2 * int(found[1])}.resnets."),
    (r"^encoder\.down_blocks\.(\d)\.downsamplers\.0\.", lambda found: f"encoder.down_blocks.{2 * int(found[1]) + 1}."),
    (r"^encoder\.mid_block\.", "encoder.down_blocks.8."),
    (
        r"^decoder\.up_blocks\.(\d)\.(resnets|time_embedder)\.",
        lambda found: f"decoder.up_blocks.{2 * int(found[1]) + 2}.{found[2]}.",
    ),
    (r"^decoder\.up_blocks\.(\d)\.upsamplers\.0\.", lambda found: f"decoder.up_blocks.{2 * int(found[1]) + 1}."),
    (r"^decoder\.mid_block\.", "decoder.up_blocks.0."),
    (r"^decoder\.time_embedder\.", "decoder.last_time_embedder."),
    (r"^decoder\.scale_shift_table", "decoder.last_scale_shift_table"),
    *_LTX_VAE_ENDS,
)
_RESNET = {
    **{"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0"},
    **{"conv2": "out_layers.3", "conv_shortcut": "skip_connection"},
}


def _in_level(found: re.Match[str]) -> str:
    """Of a UNet with two resnets a level: one is more on the way up."""
    way, level, kind, index = found[1], int(found[2]), found[3], int(found[4])
    inner = ".1" if kind == "attentions" else ".0"
    if way == "down":
        return f"input_blocks.{1 + 3 * level + index}{inner}"
    return f"output_blocks.{3 * level + index}{inner}"


LDM_UNET: Sequence[Rule] = (
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^add_embedding\.linear_1", "label_emb.0.0"),
    (r"^add_embedding\.linear_2", "label_emb.0.2"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (
        r"(\.resnets\.\d\.)(norm1|conv1|time_emb_proj|norm2|conv2|conv_shortcut)",
        lambda found: found[1] + _RESNET[found[2]],
    ),
    (r"^(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)", _in_level),
    (r"^down_blocks\.(\d)\.downsamplers\.0\.conv", lambda found: f"input_blocks.{3 + 3 * int(found[1])}.0.op"),
    (r"^mid_block\.resnets\.(\d)", lambda found: f"middle_block.{2 * int(found[1])}"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
)
