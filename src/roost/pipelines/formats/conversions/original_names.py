"""Authors' names of the tensors of classes that diffusers has no conversion for. No torch.

Rules go from diffusers' name to the authors', are tried in order, and all that match apply. Names that become one are
the parts of a fused tensor, one below another. Sources: the conversion scripts that diffusers' repository keeps for
HunyuanVideo 1.5 and Wan 2.2, and the published FLUX.2 autoencoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

HUNYUAN_REFINER: Sequence[Rule] = (
    (r"^context_embedder\.time_text_embed\.timestep_embedder\.linear_1", "txt_in.t_embedder.mlp.0"),
    (r"^context_embedder\.time_text_embed\.timestep_embedder\.linear_2", "txt_in.t_embedder.mlp.2"),
    (r"^context_embedder\.time_text_embed\.text_embedder", "txt_in.c_embedder"),
    (r"^context_embedder\.proj_in", "txt_in.input_embedder"),
    (r"^context_embedder\.token_refiner\.refiner_blocks\.", "txt_in.individual_token_refiner.blocks."),
    (r"^(txt_in\..*)\.attn\.to_[qkv]\.", r"\1.self_attn_qkv."),
    (r"^(txt_in\..*)\.attn\.to_out\.0", r"\1.self_attn_proj"),
    (r"^(txt_in\..*)\.ff\.net\.0\.proj", r"\1.mlp.fc1"),
    (r"^(txt_in\..*)\.ff\.net\.2", r"\1.mlp.fc2"),
    (r"^(txt_in\..*)\.norm_out\.linear", r"\1.adaLN_modulation.1"),
)
HUNYUAN_DOUBLE: Sequence[Rule] = (
    (r"^transformer_blocks\.", "double_blocks."),
    (r"\.norm1\.linear", ".img_mod.linear"),
    (r"\.norm1_context\.linear", ".txt_mod.linear"),
    (r"\.attn\.norm_([qk])\.", r".img_attn_\1_norm."),
    (r"\.attn\.norm_added_([qk])\.", r".txt_attn_\1_norm."),
    (r"\.attn\.to_out\.0", ".img_attn_proj"),
    (r"\.attn\.to_add_out", ".txt_attn_proj"),
    (r"\.ff\.net\.0\.proj", ".img_mlp.fc1"),
    (r"\.ff\.net\.2", ".img_mlp.fc2"),
    (r"\.ff_context\.net\.0\.proj", ".txt_mlp.fc1"),
    (r"\.ff_context\.net\.2", ".txt_mlp.fc2"),
)
FINAL_LAYER: Sequence[Rule] = (
    (r"^proj_out", "final_layer.linear"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
)
_HUNYUAN_15: Sequence[Rule] = (
    *HUNYUAN_REFINER,
    *FINAL_LAYER,
    (r"^time_embed\.timestep_embedder\.linear_1", "time_in.mlp.0"),
    (r"^time_embed\.timestep_embedder\.linear_2", "time_in.mlp.2"),
    (r"^context_embedder_2\.norm\.", "byt5_in.layernorm."),
    (r"^context_embedder_2\.linear_(\d)", r"byt5_in.fc\1"),
    (r"^image_embedder\.norm_in", "vision_in.proj.0"),
    (r"^image_embedder\.linear_1", "vision_in.proj.1"),
    (r"^image_embedder\.linear_2", "vision_in.proj.3"),
    (r"^image_embedder\.norm_out", "vision_in.proj.4"),
    (r"^x_embedder", "img_in"),
    (r"^cond_type_embed\.", "cond_type_embedding."),
    (r"\.attn\.to_([qkv])\.", r".img_attn_\1."),
    (r"\.attn\.add_([qkv])_proj\.", r".txt_attn_\1."),
    *HUNYUAN_DOUBLE,
)
_LDM_LEVELS: Sequence[Rule] = (
    (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.mid_block\.resnets\.(\d)", lambda found: f".mid.block_{int(found[1]) + 1}"),
    (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.conv_shortcut", ".nin_shortcut"),
)
_HUNYUAN_15_VAE: Sequence[Rule] = (
    *_LDM_LEVELS,
    (r"\.up_blocks\.(\d)\.resnets\.", r".up.\1.block."),
    (r"\.up_blocks\.(\d)\.upsamplers\.0\.", r".up.\1.upsample."),
)
_UP_STEPS = 3  # three levels of a VAE's decoder are enlarged, counted from the other end
LDM_VAE: Sequence[Rule] = (
    (r"\.up_blocks\.(\d)\.resnets\.", lambda found: f".up.{_UP_STEPS - int(found[1])}.block."),
    (r"\.up_blocks\.(\d)\.upsamplers\.0\.", lambda found: f".up.{_UP_STEPS - int(found[1])}.upsample."),
    (r"\.mid_block\.attentions\.0\.group_norm", ".mid.attn_1.norm"),
    (r"\.mid_block\.attentions\.0\.(to_out\.0|proj_attn)", ".mid.attn_1.proj_out"),
    (r"\.mid_block\.attentions\.0\.(key|query|value)\.", lambda found: f".mid.attn_1.{found[1][0]}."),
    *_LDM_LEVELS,
    (r"\.conv_norm_out", ".norm_out"),
)
_FLUX_2_VAE: Sequence[Rule] = (
    *LDM_VAE,
    (r"^quant_conv", "encoder.quant_conv"),
    (r"^post_quant_conv", "decoder.post_quant_conv"),
)
_RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
WAN_VAE_ENDS: Sequence[Rule] = (
    (r"^quant_conv", "conv1"),
    (r"^post_quant_conv", "conv2"),
    (r"coder\.conv_in", "coder.conv1"),
    (r"coder\.norm_out", "coder.head.0"),
    (r"coder\.conv_out", "coder.head.2"),
    (r"\.mid_block\.resnets\.(\d)", lambda found: f".middle.{2 * int(found[1])}"),
    (r"\.mid_block\.attentions\.0", ".middle.1"),
)
WAN_VAE_RESIDUALS: Sequence[Rule] = (
    (r"(?<=\d\.)(norm1|conv1|norm2|conv2)(?=\.)", lambda found: _RESIDUAL[found[0]]),
    (r"\.conv_shortcut\.", ".shortcut."),
)
# Each level is a list of its own: two resnets and what makes it smaller, three and what makes it larger.
_WAN_22_VAE: Sequence[Rule] = (
    *WAN_VAE_ENDS,
    (r"^encoder\.down_blocks\.(\d)\.resnets\.", r"encoder.downsamples.\1.downsamples."),
    (r"^encoder\.down_blocks\.(\d)\.downsampler\.", r"encoder.downsamples.\1.downsamples.2."),
    (r"^decoder\.up_blocks\.(\d)\.resnets\.", r"decoder.upsamples.\1.upsamples."),
    (r"^decoder\.up_blocks\.(\d)\.upsampler\.", r"decoder.upsamples.\1.upsamples.3."),
    *WAN_VAE_RESIDUALS,
)
_BY_CLASS: Mapping[str, Sequence[Rule]] = {
    "HunyuanVideo15Transformer3DModel": _HUNYUAN_15,
    "AutoencoderKLHunyuanVideo15": _HUNYUAN_15_VAE,
    "AutoencoderKLFlux2": _FLUX_2_VAE,
}
# Halves that the authors hold the other way round: shift before scale.
SWAPPED: Mapping[str, str] = {"HunyuanVideo15Transformer3DModel": "norm_out.linear."}


def rules_of(class_name: str, config: Mapping[str, Any]) -> Sequence[Rule] | None:
    """The rules of a class that diffusers can't convert; None for one that it can, or that nobody knows."""
    if class_name == "AutoencoderKLWan" and config.get("is_residual"):
        return _WAN_22_VAE
    return _BY_CLASS.get(class_name)


def original_name(name: str, rules: Sequence[Rule]) -> str:
    """The authors' name of one of diffusers' tensors."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
