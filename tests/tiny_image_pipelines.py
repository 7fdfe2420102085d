"""Tiny text-to-image pipelines: FLUX, SDXL, SD3.5, Qwen-Image and Z-Image; three or more blocks a stack."""

from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from local_tokenizers import clip_tokenizer, qwen2_tokenizer, t5_tokenizer
from tiny_encoders import WIDTH, clip_text, clip_text_projected, qwen3, qwen_vision_language, t5_encoder

_HEADS = 2
_HEAD_DIM = 16
_AXES = (4, 6, 6)  # how a head's width is shared out over time, height and width


def flux() -> DiffusionPipeline:
    """FLUX.1-dev: 3 joint and 4 single blocks, with embedded guidance."""
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=3,
        num_single_layers=4,
        attention_head_dim=_HEAD_DIM,
        num_attention_heads=_HEADS,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=_AXES,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=autoencoder(latent_channels=4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=clip_text(clip),
        tokenizer=clip,
        text_encoder_2=t5_encoder(t5),
        tokenizer_2=t5,
        transformer=transformer,
    )


def sdxl() -> DiffusionPipeline:
    """SDXL: a UNet whose inner stacks of transformer blocks differ in depth."""
    clip, clip_2 = clip_tokenizer(), clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 2, 2),
        transformer_layers_per_block=(1, 2, 3),
        cross_attention_dim=2 * WIDTH,
        use_linear_projection=True,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return StableDiffusionXLPipeline(
        vae=autoencoder(latent_channels=4, scaling_factor=0.13025, use_quant_conv=True),
        text_encoder=clip_text(clip),
        text_encoder_2=clip_text_projected(clip_2),
        tokenizer=clip,
        tokenizer_2=clip_2,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
    )


def sd3() -> DiffusionPipeline:
    """SD3.5: three text encoders, blocks with and without the second attention, a smaller last block."""
    clip, clip_2, t5 = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=_HEAD_DIM,
        num_attention_heads=_HEADS,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=_HEADS * _HEAD_DIM,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(latent_channels=4, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=clip_text_projected(clip),
        tokenizer=clip,
        text_encoder_2=clip_text_projected(clip_2),
        tokenizer_2=clip_2,
        text_encoder_3=t5_encoder(t5, width=2 * WIDTH),
        tokenizer_3=t5,
    )


def qwen_image() -> DiffusionPipeline:
    """Qwen-Image with the whole of Qwen2.5-VL as its text encoder."""
    tokenizer = qwen2_tokenizer()
    transformer = QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=4,
        attention_head_dim=_HEAD_DIM,
        num_attention_heads=_HEADS,
        joint_attention_dim=WIDTH,
        axes_dims_rope=_AXES,
    )
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLQwenImage(base_dim=8, z_dim=16, num_res_blocks=1),
        text_encoder=qwen_vision_language(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def z_image() -> DiffusionPipeline:
    """Z-Image: two refiner stacks beside the main one, Qwen3 as its text encoder."""
    tokenizer = qwen2_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=_HEADS * _HEAD_DIM,
        n_layers=4,
        n_refiner_layers=3,
        n_heads=_HEADS,
        n_kv_heads=_HEADS,
        cap_feat_dim=WIDTH,
        axes_dims=list(_AXES),
        axes_lens=[1024, 64, 64],
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(latent_channels=4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=qwen3(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def autoencoder(
    latent_channels: int, scaling_factor: float, shift_factor: float | None = None, use_quant_conv: bool = False
) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        latent_channels=latent_channels,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        use_quant_conv=use_quant_conv,
        use_post_quant_conv=use_quant_conv,
    )
