"""Files as people have them, at their real sizes and without data: FLUX.1-dev's, and SDXL all in one."""

from __future__ import annotations

from pathlib import Path

from sparse_files import Shapes, shapes_of, sparse_gguf, sparse_safetensors

# What quantisers of FLUX leave alone.
_WIDE = ("img_in.", "txt_in.", "time_in.", "vector_in.", "guidance_in.", "final_layer.")
_OPEN_CLIP = 1280


def flux_files(folder: Path) -> None:
    """A Q4 GGUF of the transformer, a scaled fp8 T5, CLIP-L and the VAE."""
    sparse_gguf(folder / "flux1-dev-Q4_K_S.gguf", shapes_of("flux.1-dev"), "Q4_K", "flux", _WIDE)
    t5 = shapes_of("flux.1-dev", "text_encoder_2", "diffusers")
    sparse_safetensors(folder / "t5xxl_fp8_e4m3fn_scaled.safetensors", t5, "F8_E4M3", scale="scale_weight")
    clip = shapes_of("flux.1-dev", "text_encoder", "diffusers")
    sparse_safetensors(folder / "clip_l.safetensors", clip, "F16")
    sparse_safetensors(folder / "ae.safetensors", _flux_vae(), "F32")


def sdxl_checkpoint(path: Path) -> Path:
    """The UNet, the VAE and both text encoders, each under its prefix."""
    parts = {
        "model.diffusion_model.": shapes_of("sdxl", "unet"),
        "first_stage_model.": shapes_of("sdxl", "vae"),
        "conditioner.embedders.0.transformer.": shapes_of("sdxl", "text_encoder", "diffusers"),
        "conditioner.embedders.1.model.": _open_clip(layers=32),
    }
    shapes = {f"{prefix}{name}": shape for prefix, part in parts.items() for name, shape in part.items()}
    return sparse_safetensors(path, shapes, "F16")


def _flux_vae() -> Shapes:
    """The layout of SDXL's, with latents of 16 channels and no convolution around them."""
    shapes = {name: shape for name, shape in shapes_of("sdxl", "vae").items() if "quant_conv" not in name}
    return shapes | {
        "decoder.conv_in.weight": (512, 16, 3, 3),
        "encoder.conv_out.weight": (32, 512, 3, 3),
        "encoder.conv_out.bias": (32,),
    }


def _open_clip(layers: int) -> Shapes:
    wide = (4 * _OPEN_CLIP,)
    narrow = (_OPEN_CLIP,)
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, *narrow),
        "text_projection": (*narrow, *narrow),
        "logit_scale": (),
        "token_embedding.weight": (49408, *narrow),
        "ln_final.weight": narrow,
        "ln_final.bias": narrow,
    }
    linears = {
        "attn.in_proj_": (3 * _OPEN_CLIP, *narrow),
        "attn.out_proj.": (*narrow, *narrow),
        "mlp.c_fc.": (*wide, *narrow),
        "mlp.c_proj.": (*narrow, *wide),
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}."
        shapes |= {f"{block}{norm}.{end}": narrow for norm in ("ln_1", "ln_2") for end in ("weight", "bias")}
        for name, shape in linears.items():
            shapes |= {f"{block}{name}weight": shape, f"{block}{name}bias": shape[:1]}
    return shapes
