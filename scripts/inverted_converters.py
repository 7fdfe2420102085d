"""From diffusers' names of a model's tensors to its authors' names: each table is a converter of diffusers, inverted.

Rules are (pattern, replacement), tried in order, and all that match apply. Names that become one are the parts of a
fused tensor, one below another. ``scripts/generate_layouts.py`` checks each table by running the converter on what it
gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from inverted_autoencoders import LDM_UNET, LTX_095_VAE, LTX_VAE, WAN_VAE
from roost.pipelines.formats.conversions.original_names import (
    FINAL_LAYER,
    HUNYUAN_DOUBLE,
    HUNYUAN_REFINER,
    LDM_VAE,
    Rule,
    original_name,
)
from roost.pipelines.formats.conversions.original_names import rules_of as own_rules

Shape = list[int]

_EMBEDDERS = (
    (r"^time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"^time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
    (r"^time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
    (r"^time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
    (r"^time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
)

FLUX: Sequence[Rule] = (
    *_EMBEDDERS,
    *FINAL_LAYER,
    (r"^context_embedder", "txt_in"),
    (r"^x_embedder", "img_in"),
    (r"^single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin"),
    (r"^single_transformer_blocks\.(\d+)\.(attn\.to_[qkv]|proj_mlp)\.", r"single_blocks.\1.linear1."),
    (r"^single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight", r"single_blocks.\1.norm.query_norm.scale"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight", r"single_blocks.\1.norm.key_norm.scale"),
    (r"^single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
    (r"^transformer_blocks\.", "double_blocks."),
    (r"\.norm1\.linear", ".img_mod.lin"),
    (r"\.norm1_context\.linear", ".txt_mod.lin"),
    (r"\.attn\.to_[qkv]\.", ".img_attn.qkv."),
    (r"\.attn\.add_[qkv]_proj\.", ".txt_attn.qkv."),
    (r"\.attn\.norm_q\.weight", ".img_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_k\.weight", ".img_attn.norm.key_norm.scale"),
    (r"\.attn\.norm_added_q\.weight", ".txt_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_added_k\.weight", ".txt_attn.norm.key_norm.scale"),
    (r"\.attn\.to_out\.0", ".img_attn.proj"),
    (r"\.attn\.to_add_out", ".txt_attn.proj"),
    (r"\.ff\.net\.0\.proj", ".img_mlp.0"),
    (r"\.ff\.net\.2", ".img_mlp.2"),
    (r"\.ff_context\.net\.0\.proj", ".txt_mlp.0"),
    (r"\.ff_context\.net\.2", ".txt_mlp.2"),
)
CHROMA: Sequence[Rule] = (
    (r"^(distilled_guidance_layer\.layers\.\d+)\.linear_1", r"\1.in_layer"),
    (r"^(distilled_guidance_layer\.layers\.\d+)\.linear_2", r"\1.out_layer"),
    (r"^(distilled_guidance_layer\.norms\.\d+)\.weight", r"\1.scale"),
    *FLUX,
)
FLUX_2: Sequence[Rule] = (
    (r"^time_guidance_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"^time_guidance_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"^time_guidance_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
    (r"^time_guidance_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
    (r"_stream_modulation(_img|_txt|)\.linear\.", r"_stream_modulation\1.lin."),
    (r"^single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj", r"single_blocks.\1.linear1"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.to_out\.", r"single_blocks.\1.linear2."),
    (r"\.ff\.linear_in", ".img_mlp.0"),
    (r"\.ff\.linear_out", ".img_mlp.2"),
    (r"\.ff_context\.linear_in", ".txt_mlp.0"),
    (r"\.ff_context\.linear_out", ".txt_mlp.2"),
    *FLUX,
)
SD3: Sequence[Rule] = (
    (r"^pos_embed\.pos_embed", "pos_embed"),
    (r"^pos_embed\.proj", "x_embedder.proj"),
    (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    *FINAL_LAYER,
    (r"^transformer_blocks\.", "joint_blocks."),
    (r"\.(attn2?)\.to_[qkv]\.", r".x_block.\1.qkv."),
    (r"\.attn\.add_[qkv]_proj\.", ".context_block.attn.qkv."),
    (r"\.(attn2?)\.norm_([qk])\.", r".x_block.\1.ln_\2."),
    (r"\.attn\.norm_added_([qk])\.", r".context_block.attn.ln_\1."),
    (r"\.(attn2?)\.to_out\.0", r".x_block.\1.proj"),
    (r"\.attn\.to_add_out", ".context_block.attn.proj"),
    (r"\.norm1\.linear", ".x_block.adaLN_modulation.1"),
    (r"\.norm1_context\.linear", ".context_block.adaLN_modulation.1"),
    (r"\.ff\.net\.0\.proj", ".x_block.mlp.fc1"),
    (r"\.ff\.net\.2", ".x_block.mlp.fc2"),
    (r"\.ff_context\.net\.0\.proj", ".context_block.mlp.fc1"),
    (r"\.ff_context\.net\.2", ".context_block.mlp.fc2"),
)
_SWAPPED = {"norm2": "norm3", "norm3": "norm2"}
WAN: Sequence[Rule] = (
    (r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"^condition_embedder\.time_proj", "time_projection.1"),
    (r"^condition_embedder\.image_embedder\.norm1", "img_emb.proj.0"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj", "img_emb.proj.1"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2", "img_emb.proj.3"),
    (r"^condition_embedder\.image_embedder\.norm2", "img_emb.proj.4"),
    (r"^scale_shift_table", "head.modulation"),
    (r"^proj_out", "head.head"),
    (r"\.scale_shift_table", ".modulation"),
    (r"^(vace_blocks\.\d+)\.proj_in", r"\1.before_proj"),
    (r"^(vace_blocks\.\d+)\.proj_out", r"\1.after_proj"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.add_([kv])_proj\.", r".\1_img."),
    (r"\.norm_added_k\.", ".norm_k_img."),
    (r"\.ffn\.net\.0\.proj", ".ffn.0"),
    (r"\.ffn\.net\.2", ".ffn.2"),
    (r"(?<=\d\.)norm[23](?=\.)", lambda found: _SWAPPED[found[0]]),
)


def _convolution(found: re.Match[str]) -> str:
    """Of a block of the motion encoder: its weights and its activations' biases lie in lists of two or three."""
    block, kind, end = int(found[1]) + 1, found[2], found[3]
    inside = {"conv1": {"weight": 0, "act_fn.bias": 1}, "conv2": {"weight": 1, "act_fn.bias": 2}}
    name = "skip.1" if kind == "conv_skip" else f"{kind}.{inside[kind][end]}"
    return f"motion_encoder.enc.net_app.convs.{block}.{name}.{end.removeprefix('act_fn.')}"


WAN_ANIMATE: Sequence[Rule] = (
    (r"^motion_encoder\.motion_synthesis_weight", "motion_encoder.dec.direction.weight"),
    (r"^motion_encoder\.motion_network", "motion_encoder.enc.fc"),
    (r"^motion_encoder\.conv_in\.weight", "motion_encoder.enc.net_app.convs.0.0.weight"),
    (r"^motion_encoder\.conv_in\.act_fn\.bias", "motion_encoder.enc.net_app.convs.0.1.bias"),
    (r"^motion_encoder\.conv_out\.weight", "motion_encoder.enc.net_app.convs.8.weight"),
    (r"^motion_encoder\.res_blocks\.(\d)\.(conv1|conv2|conv_skip)\.(weight|act_fn\.bias)", _convolution),
    (r"^(face_encoder\.conv(?:1_local|2|3))\.", r"\1.conv."),
    (r"^(face_adapter\.)(\d+)\.to_[kv]\.", r"\1fuser_blocks.\2.linear1_kv."),
    (r"^(face_adapter\.)(\d+)\.to_q\.", r"\1fuser_blocks.\2.linear1_q."),
    (r"^(face_adapter\.)(\d+)\.to_out\.", r"\1fuser_blocks.\2.linear2."),
    (r"^(face_adapter\.)(\d+)\.norm_([qk])\.", r"\1fuser_blocks.\2.\3_norm."),
    *WAN,
)
_OF_A_CHANNEL = re.compile(r"^motion_encoder\.enc\.net_app\.convs\..*\.bias$")  # 1 x C x 1 x 1, where diffusers has C
LTX: Sequence[Rule] = (
    (r"^proj_in", "patchify_proj"),
    (r"^time_embed\.", "adaln_single."),
    (r"\.norm_([qk])\.", r".\1_norm."),
)
Z_IMAGE: Sequence[Rule] = (
    (r"^all_final_layer\.2-1\.", "final_layer."),
    (r"^all_x_embedder\.2-1\.", "x_embedder."),
    (r"\.attention\.to_out\.0\.", ".attention.out."),
    (r"\.attention\.norm_([qk])\.", r".attention.\1_norm."),
    (r"\.attention\.to_[qkv]\.", ".attention.qkv."),
)
HUNYUAN: Sequence[Rule] = (
    *HUNYUAN_REFINER,
    (r"^time_text_embed\.timestep_embedder\.linear_1", "time_in.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "time_in.mlp.2"),
    (r"^time_text_embed\.guidance_embedder\.linear_1", "guidance_in.mlp.0"),
    (r"^time_text_embed\.guidance_embedder\.linear_2", "guidance_in.mlp.2"),
    *_EMBEDDERS,
    *FINAL_LAYER,
    (r"^x_embedder", "img_in"),
    (r"^single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.linear"),
    (r"^single_transformer_blocks\.(\d+)\.(attn\.to_[qkv]|proj_mlp)\.", r"single_blocks.\1.linear1."),
    (r"^single_transformer_blocks\.(\d+)\.attn\.norm_([qk])\.", r"single_blocks.\1.\2_norm."),
    (r"^single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
    (r"\.attn\.to_[qkv]\.", ".img_attn_qkv."),
    (r"\.attn\.add_[qkv]_proj\.", ".txt_attn_qkv."),
    *HUNYUAN_DOUBLE,
)
_OF_ONE_PIXEL = re.compile(r"\.mid\.attn_1\.(q|k|v|proj_out)\.weight$")  # convolutions, where diffusers has linears
_UPSAMPLER = re.compile(r"^up_blocks\.(\d)\.upsamplers\.0\.conv")


def renamed(tensors: Iterable[tuple[str, Shape]], rules: Sequence[Rule]) -> list[tuple[str, Shape]]:
    """The authors' tensors, in the order of their first parts; shapes of fused ones are their parts' together."""
    tensors, found = list(tensors), dict[str, Shape]()
    names = {name for name, _ in tensors}
    for name, shape in tensors:
        new = _UPSAMPLER.sub(lambda at: _upsampler(int(at[1]), names), name) if rules is LDM_UNET else name
        new = original_name(new, rules)
        if new in found:
            found[new] = [found[new][0] + shape[0], *shape[1:]]
        else:
            found[new] = _original_shape(new, shape)
    return list(found.items())


def _original_shape(name: str, shape: Shape) -> Shape:
    if _OF_ONE_PIXEL.search(name) and len(shape) == 2:
        return [*shape, 1, 1]
    return [1, *shape, 1, 1] if _OF_A_CHANNEL.search(name) else shape


def _upsampler(level: int, names: set[str]) -> str:
    has_attention = any(name.startswith(f"up_blocks.{level}.attentions.") for name in names)
    return f"output_blocks.{3 * level + 2}.{2 if has_attention else 1}.conv"


# By diffusers' class.
_BY_CLASS: dict[str, Sequence[Rule]] = {
    "FluxTransformer2DModel": FLUX,
    "ChromaTransformer2DModel": CHROMA,
    "Flux2Transformer2DModel": FLUX_2,
    "SD3Transformer2DModel": SD3,
    "WanTransformer3DModel": WAN,
    "WanVACETransformer3DModel": WAN,
    "WanAnimateTransformer3DModel": WAN_ANIMATE,
    "LTXVideoTransformer3DModel": LTX,
    "ZImageTransformer2DModel": Z_IMAGE,
    "HunyuanVideoTransformer3DModel": HUNYUAN,
    "AutoencoderKLWan": WAN_VAE,
    "AutoencoderKLQwenImage": WAN_VAE,
    "AutoencoderKLLTXVideo": LTX_VAE,
    "AutoencoderKL": LDM_VAE,
    "UNet2DConditionModel": LDM_UNET,
}


def rules_of(class_name: str, config: Mapping[str, Any]) -> Sequence[Rule] | None:
    """The table of a class; None for one whose files have diffusers' own names, or that nobody knows."""
    if class_name == "AutoencoderKLLTXVideo" and len(config["block_out_channels"]) > 4:
        return LTX_095_VAE
    return own_rules(class_name, config) or _BY_CLASS.get(class_name)
