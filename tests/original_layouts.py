"""State dicts of tiny diffusers models as the original files of their families name and join them."""

import re
from collections.abc import Callable, Collection, Mapping

import torch

State = Mapping[str, torch.Tensor]
_WAN = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    ".attn2.": ".cross_attn.",
    ".attn1.": ".self_attn.",
    ".to_out.0.": ".o.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "proj_out": "head.head",
}
_LTX = {"proj_in": "patchify_proj", "time_embed": "adaln_single", "norm_q": "q_norm", "norm_k": "k_norm"}


def wan(state: State) -> dict[str, torch.Tensor]:
    """Renamed alone; the second and third norm of a block change their names."""
    made = {}
    for name, tensor in state.items():
        new = _replaced(name, _WAN)
        new = re.sub(r"\.norm([23])\.", lambda match: f".norm{5 - int(match[1])}.", new)
        new = "head.modulation" if new == "scale_shift_table" else new.replace("scale_shift_table", "modulation")
        made[new] = tensor
    return made


def ltx(state: State) -> dict[str, torch.Tensor]:
    return {_replaced(name, _LTX): tensor for name, tensor in state.items()}


def sd3(state: State) -> dict[str, torch.Tensor]:
    """Queries, keys and values in one, and the last modulations with shift before scale."""
    state = dict(state)
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("transformer_blocks."))
    made = {
        "pos_embed": state.pop("pos_embed.pos_embed"),
        **_moved(state, "x_embedder.proj", "pos_embed.proj"),
        **_moved(state, "t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
        **_moved(state, "t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
        **_moved(state, "y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"),
        **_moved(state, "y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"),
        **_moved(state, "context_embedder", "context_embedder"),
        **_moved(state, "final_layer.linear", "proj_out"),
        **_moved(state, "final_layer.adaLN_modulation.1", "norm_out.linear", _swapped),
    }
    for index in range(layers):
        block, original = f"transformer_blocks.{index}.", f"joint_blocks.{index}."
        last = index == layers - 1
        dual = f"{block}attn2.to_q.weight" in state
        sides = [("x_block.attn", "attn.to_{}"), ("context_block.attn", "attn.add_{}_proj")]
        for side, parts in [*sides, *([("x_block.attn2", "attn2.to_{}")] if dual else [])]:
            for kind in ("weight", "bias"):
                joined = [state.pop(f"{block}{parts.format(each)}.{kind}") for each in "qkv"]
                made[f"{original}{side}.qkv.{kind}"] = torch.cat(joined)
        for each in "qk":
            made[f"{original}x_block.attn.ln_{each}.weight"] = state.pop(f"{block}attn.norm_{each}.weight")
            made[f"{original}context_block.attn.ln_{each}.weight"] = state.pop(f"{block}attn.norm_added_{each}.weight")
            if dual:
                made[f"{original}x_block.attn2.ln_{each}.weight"] = state.pop(f"{block}attn2.norm_{each}.weight")
        pairs = {"attn.to_out.0": "x_block.attn.proj", "norm1.linear": "x_block.adaLN_modulation.1"}
        pairs |= {"ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2"}
        if dual:
            pairs["attn2.to_out.0"] = "x_block.attn2.proj"
        if not last:
            pairs |= {"attn.to_add_out": "context_block.attn.proj", "ff_context.net.0.proj": "context_block.mlp.fc1"}
            pairs |= {"ff_context.net.2": "context_block.mlp.fc2"}
        for new, old in pairs.items():
            made |= _moved(state, original + old, block + new)
        swap = _swapped if last else None
        made |= _moved(state, f"{original}context_block.adaLN_modulation.1", f"{block}norm1_context.linear", swap)
    assert not state, state.keys()
    return made


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(reversed(tensor.chunk(2))))


def _moved(
    state: dict[str, torch.Tensor], old: str, new: str, change: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    found = {f"{old}.{kind}": state.pop(f"{new}.{kind}") for kind in ("weight", "bias")}
    return {name: change(each) if change else each for name, each in found.items()}


def _replaced(name: str, table: Mapping[str, str]) -> str:
    for new, old in table.items():
        name = name.replace(new, old)
    return name


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def unet(state: State, layers: int, attending: Collection[int]) -> dict[str, torch.Tensor]:
    """SD's and SDXL's UNet with ``layers`` in each block; ``attending`` are its last blocks that have attentions."""
    made = {}
    for name, tensor in state.items():
        made[_unet_name(name, layers, attending)] = tensor
    return made


def _unet_name(name: str, layers: int, attending: Collection[int]) -> str:
    for new, old in _UNET.items():
        if name.startswith(f"{new}."):
            return name.replace(new, old, 1)
    down = re.match(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.*)", name)
    if down:
        at = 1 + int(down[1]) * (layers + 1) + (layers if down[2] == "downsamplers" else int(down[3]))
        return f"input_blocks.{at}.{_within(down[2], down[4])}"
    middle = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name)
    if middle:
        at = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return f"middle_block.{at}.{_within(middle[1], middle[3]).split('.', 1)[1]}"
    up = re.match(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(.*)", name)
    assert up, name
    at = int(up[1]) * (layers + 1) + (layers if up[2] == "upsamplers" else int(up[3]))
    if up[2] != "upsamplers":
        return f"output_blocks.{at}.{_within(up[2], up[4])}"
    return f"output_blocks.{at}.{'2' if int(up[1]) in attending else '1'}.{up[4]}"


def _within(kind: str, rest: str) -> str:
    if kind == "resnets":
        first, _, leaf = rest.partition(".")
        return f"0.{_RESNET[first]}.{leaf}"
    return f"1.{rest}" if kind == "attentions" else f"0.op.{rest.removeprefix('conv.')}"


_VAE = {
    ".conv_shortcut": ".nin_shortcut",
    ".downsamplers.0.conv": ".downsample.conv",
    ".upsamplers.0.conv": ".upsample.conv",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    "mid_block.attentions.0.to_": "mid.attn_1.",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "conv_norm_out": "norm_out",
}


def vae(state: State, ups: int) -> dict[str, torch.Tensor]:
    """SD's autoencoder: attentions as convolutions, and the last blocks counted backwards."""
    made = {}
    for name, tensor in state.items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", _replaced(name, _VAE))
        new = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda match: f"up.{ups - 1 - int(match[1])}.block.", new)
        new = re.sub(r"up_blocks\.(\d+)\.", lambda match: f"up.{ups - 1 - int(match[1])}.", new)
        made[new] = tensor[..., None, None] if ".attn_1." in new and tensor.ndim == 2 else tensor
    return made
