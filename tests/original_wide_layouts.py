"""Inverse conversions of the families whose conversion only works at their true width."""

import re
from collections.abc import Mapping

import torch

State = dict[str, torch.Tensor]
_BLACK_FOREST = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
    "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
    "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
    "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
    "proj_out": "linear2",
}
_HUNYUAN = {
    "x_embedder.proj": "img_in.proj",
    "time_text_embed.timestep_embedder.linear_1": "time_in.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "time_in.mlp.2",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.mlp.0",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.mlp.2",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
_HUNYUAN_DOUBLE = {
    "norm1.linear": "img_mod.linear",
    "norm1_context.linear": "txt_mod.linear",
    "attn.norm_q": "img_attn_q_norm",
    "attn.norm_k": "img_attn_k_norm",
    "attn.norm_added_q": "txt_attn_q_norm",
    "attn.norm_added_k": "txt_attn_k_norm",
    "attn.to_out.0": "img_attn_proj",
    "attn.to_add_out": "txt_attn_proj",
    "ff.net.0.proj": "img_mlp.fc1",
    "ff.net.2": "img_mlp.fc2",
    "ff_context.net.0.proj": "txt_mlp.fc1",
    "ff_context.net.2": "txt_mlp.fc2",
}
_HUNYUAN_SINGLE = {
    "norm.linear": "modulation.linear",
    "attn.norm_q": "q_norm",
    "attn.norm_k": "k_norm",
    "proj_out": "linear2",
}
_REFINER = {
    "token_refiner.refiner_blocks": "individual_token_refiner.blocks",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder": "c_embedder",
    "norm_out.linear": "adaLN_modulation.1",
    "attn.to_out.0": "self_attn_proj",
    "proj_in": "input_embedder",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
    "linear_1": "linear_1",
}


def flux(state: Mapping[str, torch.Tensor]) -> State:
    """FLUX.1 and Chroma: queries, keys and values in one, with the first layer of the MLP in single blocks."""
    rest, made = dict(state), _joined(dict(state), "img_attn.qkv", "txt_attn.qkv")
    for name, each in rest.items():
        match = re.match(r"(single_)?transformer_blocks\.(\d+)\.(.*)", name)
        if match and not _is_joined(match[3], bool(match[1])):
            place = f"{'single' if match[1] else 'double'}_blocks.{match[2]}."
            made[place + _by(match[3], _SINGLE if match[1] else _DOUBLE)] = each
        elif not match:
            made[_guidance(_by(name, _BLACK_FOREST))] = _swapped(each) if name.startswith("norm_out.linear") else each
    return made


def hunyuan(state: Mapping[str, torch.Tensor]) -> State:
    rest, made = dict(state), _joined(dict(state), "img_attn_qkv", "txt_attn_qkv")
    for name, each in rest.items():
        match = re.match(r"(single_)?transformer_blocks\.(\d+)\.(.*)", name)
        if match and not _is_joined(match[3], bool(match[1])):
            place = f"{'single' if match[1] else 'double'}_blocks.{match[2]}."
            made[place + _by(match[3], _HUNYUAN_SINGLE if match[1] else _HUNYUAN_DOUBLE)] = each
        elif name.startswith("context_embedder."):
            made |= _refined(name, state)
        elif not match:
            made[_by(name, _HUNYUAN)] = _swapped(each) if name.startswith("norm_out.linear") else each
    return made


def _refined(name: str, state: Mapping[str, torch.Tensor]) -> State:
    original = "txt_in." + name.removeprefix("context_embedder.")
    if re.search(r"attn\.to_[kv]\.", name):
        return {}
    if ".attn.to_q." in name:
        joined = torch.cat([state[name.replace("to_q", f"to_{each}")] for each in "qkv"])
        return {_all(original.replace("attn.to_q", "self_attn_qkv"), _REFINER): joined}
    return {_all(original, _REFINER): state[name]}


def _joined(state: State, image: str, text: str) -> State:
    """The joined projections of every block."""
    made = {}
    for name in state:
        match = re.match(r"(single_)?transformer_blocks\.(\d+)\.attn\.to_q\.(weight|bias)", name)
        if not match:
            continue
        single, index, kind = match.groups()
        block = f"{single or ''}transformer_blocks.{index}."
        parts = [state[f"{block}attn.to_{each}.{kind}"] for each in "qkv"]
        if single:
            made[f"single_blocks.{index}.linear1.{kind}"] = torch.cat([*parts, state[f"{block}proj_mlp.{kind}"]])
            continue
        made[f"double_blocks.{index}.{image}.{kind}"] = torch.cat(parts)
        added = [state[f"{block}attn.add_{each}_proj.{kind}"] for each in "qkv"]
        made[f"double_blocks.{index}.{text}.{kind}"] = torch.cat(added)
    return made


def _is_joined(name: str, single: bool) -> bool:
    return bool(re.match(r"attn\.(to_[qkv]|add_[qkv]_proj)\.", name)) or (single and name.startswith("proj_mlp."))


def _guidance(name: str) -> str:
    """Chroma's distilled guidance."""
    name = re.sub(r"(distilled_guidance_layer\.layers\.\d+)\.linear_1", r"\1.in_layer", name)
    name = re.sub(r"(distilled_guidance_layer\.layers\.\d+)\.linear_2", r"\1.out_layer", name)
    return re.sub(r"(distilled_guidance_layer\.norms\.\d+)\.weight", r"\1.scale", name)


def _by(name: str, table: Mapping[str, str]) -> str:
    for new, old in table.items():
        if name == new or name.startswith(f"{new}."):
            return old + name.removeprefix(new)
    return name


def _all(name: str, table: Mapping[str, str]) -> str:
    for new, old in table.items():
        name = name.replace(new, old)
    return name


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(reversed(tensor.chunk(2))))


_WAN_VAE = {
    ".mid_block.resnets.0.": ".middle.0.",
    ".mid_block.attentions.0.": ".middle.1.",
    ".mid_block.resnets.1.": ".middle.2.",
    ".norm_out.": ".head.0.",
    ".conv_out.": ".head.2.",
    ".conv_in.": ".conv1.",
    ".norm1.": ".residual.0.",
    ".conv1.": ".residual.2.",
    ".norm2.": ".residual.3.",
    ".conv2.": ".residual.6.",
    ".conv_shortcut.": ".shortcut.",
    "encoder.down_blocks.": "encoder.downsamples.",
}
_ROOT = {"encoder.conv_in.": "encoder.conv1.", "decoder.conv_in.": "decoder.conv1."}
_ROOT |= {"post_quant_conv.": "conv2.", "quant_conv.": "conv1."}


def wan_vae(state: Mapping[str, torch.Tensor]) -> State:
    """Wan's autoencoder, whose blocks are numbered in one row; its conversion knows four of them."""
    made = {}
    for name, each in state.items():
        root = next((new for new in _ROOT if name.startswith(new)), None)
        new = name.replace(root, _ROOT[root], 1) if root else _all(name, _WAN_VAE)
        new = re.sub(
            r"decoder\.up_blocks\.(\d)\.resnets\.(\d)\.",
            lambda match: f"decoder.upsamples.{4 * int(match[1]) + int(match[2])}.",
            new,
        )
        made[re.sub(r"decoder\.up_blocks\.(\d)\.upsamplers\.0\.", _upsampler, new)] = each
    return made


def _upsampler(match: re.Match[str]) -> str:
    return f"decoder.upsamples.{4 * int(match[1]) + 3}."
