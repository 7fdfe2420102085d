"""Tiny pipelines whose calls differ from text to image and text to video: no prompt, no size, other names, sound."""

from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    AutoencoderOobleck,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LattePipeline,
    LatteTransformer3DModel,
    MarigoldDepthPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    UNetSpatioTemporalConditionModel,
)
from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from local_tokenizers import clip_tokenizer, t5_tokenizer
from tiny_encoders import WIDTH, clip_text, t5_encoder
from tiny_image_pipelines import autoencoder

_HEADS, _HEAD_DIM, _LATENTS = 2, 16, 4
_CLIP_PIXELS = 224  # the size that the pipeline gives pictures to the encoder at
_CONTEXT = {
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_elementwise_affine": False,
}


def stable_video_diffusion() -> DiffusionPipeline:
    """A picture and no prompt become a video; a UNet over space and time."""
    unet = UNetSpatioTemporalConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH,
        num_attention_heads=_HEADS,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=3 * 32,
    )
    vae = AutoencoderKLTemporalDecoder(block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2)
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=_HEADS,
        image_size=_CLIP_PIXELS,
        patch_size=56,
    )
    return StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=CLIPVisionModelWithProjection(vision),
        unet=unet,
        scheduler=EulerDiscreteScheduler(prediction_type="v_prediction", timestep_type="continuous", sigma_min=0.002),
        feature_extractor=CLIPImageProcessor(),
    )


def latte() -> DiffusionPipeline:
    """Its frames are called video_length."""
    tokenizer = t5_tokenizer()
    transformer = LatteTransformer3DModel(
        sample_size=8,
        num_layers=3,
        patch_size=2,
        attention_head_dim=_HEAD_DIM,
        num_attention_heads=_HEADS,
        caption_channels=WIDTH,
        in_channels=_LATENTS,
        out_channels=2 * _LATENTS,
        cross_attention_dim=_HEADS * _HEAD_DIM,
        norm_type="ada_norm_single",
        video_length=4,
        **_CONTEXT,
    )
    return LattePipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        vae=autoencoder(latent_channels=_LATENTS, scaling_factor=0.18215),
        transformer=transformer,
        scheduler=DDIMScheduler(),
    )


def stable_audio() -> DiffusionPipeline:
    """Text to sound; a projection model beside the encoder."""
    tokenizer = t5_tokenizer()
    transformer = StableAudioDiTModel(
        sample_size=4,
        in_channels=3,
        out_channels=3,
        num_layers=3,
        attention_head_dim=4,
        num_attention_heads=4,
        num_key_value_attention_heads=2,
        cross_attention_dim=4,
        cross_attention_input_dim=4,
        time_proj_dim=8,
        global_states_input_dim=8,
    )
    vae = AutoencoderOobleck(
        encoder_hidden_size=6,
        downsampling_ratios=[1, 2],
        channel_multiples=[2, 4],
        decoder_channels=3,
        decoder_input_channels=3,
        sampling_rate=4,
    )
    return StableAudioPipeline(
        vae=vae,
        text_encoder=t5_encoder(tokenizer),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=WIDTH, conditioning_dim=4, min_value=0, max_value=32
        ),
        tokenizer=tokenizer,
        transformer=transformer,
        scheduler=EDMDPMSolverMultistepScheduler(prediction_type="v_prediction", sigma_data=1.0),
    )


def ddpm() -> DiffusionPipeline:
    """A UNet alone: no prompt, no size, no guidance."""
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return DDPMPipeline(unet=unet, scheduler=DDPMScheduler())


def marigold_depth() -> DiffusionPipeline:
    """A picture becomes a map of depths: its VAE encodes first, its progress bar takes more than steps."""
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=2 * _LATENTS,
        out_channels=_LATENTS,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        norm_num_groups=4,
        attention_head_dim=2,
    )
    return MarigoldDepthPipeline(
        unet=unet,
        vae=autoencoder(latent_channels=_LATENTS, scaling_factor=0.18215, use_quant_conv=True),
        scheduler=DDIMScheduler(prediction_type="v_prediction", set_alpha_to_one=False, clip_sample=False),
        text_encoder=clip_text(tokenizer),
        tokenizer=tokenizer,
        prediction_type="depth",
        default_denoising_steps=2,
        default_processing_resolution=64,
    )


def pixart() -> DiffusionPipeline:
    """Its scheduler's config holds -Infinity, as the published one does."""
    tokenizer = t5_tokenizer()
    transformer = PixArtTransformer2DModel(
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        in_channels=_LATENTS,
        out_channels=2 * _LATENTS,
        num_layers=3,
        cross_attention_dim=_HEADS * _HEAD_DIM,
        sample_size=32,
        caption_channels=WIDTH,
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        vae=autoencoder(latent_channels=_LATENTS, scaling_factor=0.13025),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def dit() -> DiffusionPipeline:
    """Numbers of classes in place of a prompt."""
    transformer = DiTTransformer2DModel(
        sample_size=8,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=_HEADS,
        out_channels=2 * _LATENTS,
        norm_type="ada_norm_zero",
        **_CONTEXT,
    )
    vae: AutoencoderKL = autoencoder(latent_channels=_LATENTS, scaling_factor=0.18215)
    return DiTPipeline(transformer=transformer, vae=vae, scheduler=DDIMScheduler())
