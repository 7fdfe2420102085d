"""Tiny pipelines of FLUX's make: joint and single blocks over packed latents, some with a picture beside."""

from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    BriaPipeline,
    BriaTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxControlPipeline,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
)
from transformers import (
    Qwen3Config,
    Qwen3ForCausalLM,
)

from local_tokenizers import clip_tokenizer, qwen2_tokenizer, t5_tokenizer
from tiny_encoders import WIDTH, clip_text, qwen3, t5_encoder
from tiny_image_pipelines import autoencoder

_LATENTS, _PACKED = 4, 16  # FLUX and its kin see four latents of a square as one
_HEADS, _HEAD_DIM = 2, 16
_WIDTHS = {"attention_head_dim": _HEAD_DIM, "num_attention_heads": _HEADS}
_TWO_STACKS = {"num_layers": 3, "num_single_layers": 3, **_WIDTHS}
_AXES = (4, 6, 6)


def chroma() -> DiffusionPipeline:
    """FLUX without CLIP: modulations come from a stack of their own."""
    transformer = ChromaTransformer2DModel(
        in_channels=_PACKED,
        joint_attention_dim=WIDTH,
        axes_dims_rope=_AXES,
        approximator_num_channels=8,
        approximator_hidden_dim=WIDTH,
        approximator_layers=3,
        **_TWO_STACKS,
    )
    return ChromaPipeline(scheduler=flow(), vae=vae(shifted=True), transformer=transformer, **t5())


def flux2_klein() -> DiffusionPipeline:
    """FLUX.2 klein: hidden states of three layers of Qwen3 side by side; pictures are optional."""
    tokenizer = qwen2_tokenizer()
    qwen_width, qwen_layers = 8, 28  # the pipeline reads the 27th
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=qwen_width,
        intermediate_size=16,
        num_hidden_layers=qwen_layers,
        num_attention_heads=_HEADS,
        num_key_value_heads=1,
        head_dim=4,
    )
    transformer = Flux2Transformer2DModel(
        in_channels=_PACKED,
        joint_attention_dim=3 * qwen_width,
        timestep_guidance_channels=WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
        **_TWO_STACKS,
    )
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=_LATENTS,
        norm_num_groups=4,
    )
    return Flux2KleinPipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(config),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def bria() -> DiffusionPipeline:
    """Bria 3: FLUX's two stacks with T5 alone."""
    transformer = BriaTransformer2DModel(
        in_channels=_PACKED, joint_attention_dim=WIDTH, axes_dims_rope=list(_AXES), **_TWO_STACKS
    )
    return BriaPipeline(transformer=transformer, scheduler=flow(), vae=vae(shifted=True), **t5())


def ovis_image() -> DiffusionPipeline:
    """Ovis-Image: two stacks, Qwen3."""
    tokenizer = qwen2_tokenizer()
    transformer = OvisImageTransformer2DModel(
        in_channels=_PACKED,
        out_channels=_PACKED,
        joint_attention_dim=WIDTH,
        axes_dims_rope=_AXES,
        **_TWO_STACKS,
    )
    return OvisImagePipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=vae(shifted=True),
        text_encoder=qwen3(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def flux_fill() -> DiffusionPipeline:
    """FLUX Fill: the transformer sees the masked picture and the mask too."""
    return FluxFillPipeline(**_flux(in_channels=2 * _PACKED + 4 * 8 * 8))


def flux_kontext() -> DiffusionPipeline:
    """FLUX Kontext: the picture's tokens stand beside the output's."""
    return FluxKontextPipeline(**_flux(in_channels=_PACKED))


def flux_control() -> DiffusionPipeline:
    """FLUX Control: the control picture's latents are further channels."""
    return FluxControlPipeline(**_flux(in_channels=2 * _PACKED))


def _flux(in_channels: int) -> dict[str, object]:
    clip, tokenizer = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=in_channels,
        out_channels=_PACKED,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=_AXES,
        **_TWO_STACKS,
    )
    return {
        "scheduler": flow(use_dynamic_shifting=True),
        "vae": vae(shifted=True),
        "text_encoder": clip_text(clip),
        "tokenizer": clip,
        "text_encoder_2": t5_encoder(tokenizer),
        "tokenizer_2": tokenizer,
        "transformer": transformer,
    }


def vae(*, shifted: bool = False) -> AutoencoderKL:
    """An autoencoder of four latents; FLUX shifts them."""
    return autoencoder(latent_channels=_LATENTS, scaling_factor=0.36, shift_factor=0.12 if shifted else None)


def flow(**options: object) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler of rectified flows."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0, **options)


def t5() -> dict[str, object]:
    """T5 as a pipeline's one text encoder."""
    tokenizer = t5_tokenizer()
    return {"tokenizer": tokenizer, "text_encoder": t5_encoder(tokenizer)}
