"""From diffusers' names of a model's tensors to its authors' names: each table is a converter of diffusers, inverted.

Rules are (pattern, replacement), tried in order, and all that match apply. Names that become one are the parts of a
fused tensor, one below another. ``scripts/generate_layouts.py`` checks each table by running the converter on what it
gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
Shape = list[int]

_EMBEDDERS = (
    (r"^time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"^time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
    (r"^time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
    (r"^time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
    (r"^time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
)
_FINAL = ((r"^proj_out", "final_layer.linear"), (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"))

FLUX: Sequence[Rule] = (
    *_EMBEDDERS,
    *_FINAL,
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
SD3: Sequence[Rule] = (
    (r"^pos_embed\.pos_embed", "pos_embed"),
    (r"^pos_embed\.proj", "x_embedder.proj"),
    (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    *_FINAL,
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
    (r"^time_text_embed\.timestep_embedder\.linear_1", "time_in.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "time_in.mlp.2"),
    (r"^time_text_embed\.guidance_embedder\.linear_1", "guidance_in.mlp.0"),
    (r"^time_text_embed\.guidance_embedder\.linear_2", "guidance_in.mlp.2"),
    *_EMBEDDERS,
    *_FINAL,
    (r"^x_embedder", "img_in"),
    (r"^single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.linear"),
    (r"^single_transformer_blocks\.(\d+)\.(attn\.to_[qkv]|proj_mlp)\.", r"single_blocks.\1.linear1."),
    (r"^single_transformer_blocks\.(\d+)\.attn\.norm_([qk])\.", r"single_blocks.\1.\2_norm."),
    (r"^single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
    (r"^transformer_blocks\.", "double_blocks."),
    (r"\.norm1\.linear", ".img_mod.linear"),
    (r"\.norm1_context\.linear", ".txt_mod.linear"),
    (r"\.attn\.to_[qkv]\.", ".img_attn_qkv."),
    (r"\.attn\.add_[qkv]_proj\.", ".txt_attn_qkv."),
    (r"\.attn\.norm_([qk])\.", r".img_attn_\1_norm."),
    (r"\.attn\.norm_added_([qk])\.", r".txt_attn_\1_norm."),
    (r"\.attn\.to_out\.0", ".img_attn_proj"),
    (r"\.attn\.to_add_out", ".txt_attn_proj"),
    (r"\.ff\.net\.0\.proj", ".img_mlp.fc1"),
    (r"\.ff\.net\.2", ".img_mlp.fc2"),
    (r"\.ff_context\.net\.0\.proj", ".txt_mlp.fc1"),
    (r"\.ff_context\.net\.2", ".txt_mlp.fc2"),
)
_RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
_RESIDUALS: Sequence[Rule] = (
    (r"(?<=\d\.)(norm1|conv1|norm2|conv2)(?=\.)", lambda found: _RESIDUAL[found[0]]),
    (r"\.conv_shortcut\.", ".shortcut."),
)
WAN_VAE: Sequence[Rule] = (
    (r"^quant_conv", "conv1"),
    (r"^post_quant_conv", "conv2"),
    (r"coder\.conv_in", "coder.conv1"),
    (r"coder\.norm_out", "coder.head.0"),
    (r"coder\.conv_out", "coder.head.2"),
    (r"\.mid_block\.resnets\.(\d)", lambda found: f".middle.{2 * int(found[1])}"),
    (r"\.mid_block\.attentions\.0", ".middle.1"),
    (r"^encoder\.down_blocks\.", "encoder.downsamples."),
    (
        r"^decoder\.up_blocks\.(\d)\.resnets\.(\d)",
        lambda found: f"decoder.upsamples.{4 * int(found[1]) + int(found[2])}",
    ),
    (r"^decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda found: f"decoder.upsamples.{4 * int(found[1]) + 3}"),
    *_RESIDUALS,
)
_UP_STEPS = 3  # three levels of a VAE's decoder are enlarged, counted from the other end
LDM_VAE: Sequence[Rule] = (
    (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d)\.resnets\.", lambda found: f".up.{_UP_STEPS - int(found[1])}.block."),
    (r"\.up_blocks\.(\d)\.upsamplers\.0\.", lambda found: f".up.{_UP_STEPS - int(found[1])}.upsample."),
    (r"\.mid_block\.resnets\.(\d)", lambda found: f".mid.block_{int(found[1]) + 1}"),
    (r"\.mid_block\.attentions\.0\.group_norm", ".mid.attn_1.norm"),
    (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
    (r"\.mid_block\.attentions\.0\.to_out\.0", ".mid.attn_1.proj_out"),
    (r"\.mid_block\.attentions\.0\.proj_attn", ".mid.attn_1.proj_out"),
    (r"\.mid_block\.attentions\.0\.(key|query|value)\.", lambda found: f".mid.attn_1.{found[1][0]}."),
    (r"\.conv_norm_out", ".norm_out"),
    (r"\.conv_shortcut", ".nin_shortcut"),
)
_OF_ONE_PIXEL = re.compile(r"\.mid\.attn_1\.(q|k|v|proj_out)\.weight$")  # convolutions, where diffusers has linears
_LTX_DOWN = {"resnets.": 0, "downsamplers.0.": 1, "conv_out.": 2}
_LTX_UP = {"conv_in.": -2, "upsamplers.0.": -1, "resnets.": 0}


def _ltx_down(found: re.Match[str]) -> str:
    """Levels of three, one after another in a single list; the last level has no way into a next one."""
    index = 3 * int(found[1]) + _LTX_DOWN[found[2]]
    return f"encoder.down_blocks.{index - (found[1] == '3')}." + ("resnets." if found[2] == "resnets." else "")


def _ltx_up(found: re.Match[str]) -> str:
    index = 3 * int(found[1]) + (1 if found[1] == "0" else 0) + _LTX_UP[found[2]]
    return f"decoder.up_blocks.{index}." + ("resnets." if found[2] == "resnets." else "")


# Of 0.9.0; later ones have other levels.
LTX_VAE: Sequence[Rule] = (
    (r"^latents_mean$", "per_channel_statistics.mean-of-means"),
    (r"^latents_std$", "per_channel_statistics.std-of-means"),
    (r"^encoder\.down_blocks\.(\d)\.(resnets\.|downsamplers\.0\.|conv_out\.)", _ltx_down),
    (r"^decoder\.up_blocks\.(\d)\.(resnets\.|upsamplers\.0\.|conv_in\.)", _ltx_up),
    (r"^encoder\.mid_block\.", "encoder.down_blocks.9."),
    (r"^decoder\.mid_block\.", "decoder.up_blocks.0."),
    (r"\.resnets\.", ".res_blocks."),
    (r"\.norm3\.", ".norm3.norm."),
    (r"\.conv_shortcut\.conv\.", ".conv_shortcut."),
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
_UPSAMPLER = re.compile(r"^up_blocks\.(\d)\.upsamplers\.0\.conv")


def renamed(tensors: Iterable[tuple[str, Shape]], rules: Sequence[Rule]) -> list[tuple[str, Shape]]:
    """The authors' tensors, in the order of their first parts; shapes of fused ones are their parts' together."""
    tensors, found = list(tensors), dict[str, Shape]()
    names = {name for name, _ in tensors}
    compiled = [(re.compile(pattern), new) for pattern, new in rules]
    for name, shape in tensors:
        new = _UPSAMPLER.sub(lambda at: _upsampler(int(at[1]), names), name) if rules is LDM_UNET else name
        for pattern, replacement in compiled:
            new = pattern.sub(replacement, new)
        if new in found:
            found[new] = [found[new][0] + shape[0], *shape[1:]]
        else:
            found[new] = [*shape, 1, 1] if rules is LDM_VAE and _OF_ONE_PIXEL.search(new) else shape
    return list(found.items())


def _upsampler(level: int, names: set[str]) -> str:
    has_attention = any(name.startswith(f"up_blocks.{level}.attentions.") for name in names)
    return f"output_blocks.{3 * level + 2}.{2 if has_attention else 1}.conv"


# By diffusers' class.
ORIGINAL_NAMES: dict[str, Sequence[Rule]] = {
    "FluxTransformer2DModel": FLUX,
    "SD3Transformer2DModel": SD3,
    "WanTransformer3DModel": WAN,
    "WanVACETransformer3DModel": WAN,
    "LTXVideoTransformer3DModel": LTX,
    "ZImageTransformer2DModel": Z_IMAGE,
    "HunyuanVideoTransformer3DModel": HUNYUAN,
    "AutoencoderKLWan": WAN_VAE,
    "AutoencoderKLQwenImage": WAN_VAE,
    "AutoencoderKLLTXVideo": LTX_VAE,
    "AutoencoderKL": LDM_VAE,
    "UNet2DConditionModel": LDM_UNET,
}
