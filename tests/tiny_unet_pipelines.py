"""Tiny pipelines around UNets: Stable Diffusion with its safety checker, priors, pixels, adapters and motion."""

from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    IFPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    KandinskyV22CombinedPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    MotionAdapter,
    PNDMScheduler,
    PriorTransformer,
    StableDiffusionAdapterPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from local_tokenizers import clip_tokenizer, t5_tokenizer
from tiny_encoders import WIDTH, clip_text, clip_text_projected, t5_encoder
from tiny_image_pipelines import autoencoder

_LATENTS = 4
_PIXELS = 32  # of the pictures that CLIP sees
_TOWER = {"hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
_VISION = {**_TOWER, "projection_dim": WIDTH, "image_size": _PIXELS, "patch_size": 8}
_NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
_SIMPLE_ATTENTION = {
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "encoder_hid_dim": WIDTH,
    "resnet_time_scale_shift": "scale_shift",
}


def stable_diffusion() -> DiffusionPipeline:
    """Stable Diffusion 1.5 with its safety checker, which looks at what was decoded."""
    vision = {**_VISION, "num_hidden_layers": 3}
    config = CLIPConfig(text_config={**_TOWER, "projection_dim": WIDTH}, vision_config=vision, projection_dim=WIDTH)
    return StableDiffusionPipeline(
        unet=_unet(),
        scheduler=PNDMScheduler(skip_prk_steps=True),
        safety_checker=StableDiffusionSafetyChecker(config),
        feature_extractor=CLIPImageProcessor(size=_PIXELS, crop_size=_PIXELS),
        **_latent(),
    )


def latent_consistency() -> DiffusionPipeline:
    """A UNet that is told its guidance."""
    return LatentConsistencyModelPipeline(
        unet=_unet(time_cond_proj_dim=32), scheduler=LCMScheduler(), **_latent(), **_NO_CHECKER
    )


def adapter() -> DiffusionPipeline:
    """A T2I adapter runs once, before the first step."""
    return StableDiffusionAdapterPipeline(
        unet=_unet(
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        adapter=T2IAdapter(channels=[16, 32], num_res_blocks=2),
        scheduler=PNDMScheduler(skip_prk_steps=True),
        **_latent(),
        **_NO_CHECKER,
    )


def animatediff() -> DiffusionPipeline:
    """A motion adapter, which becomes part of the UNet as the pipeline is made."""
    motion = MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=2, motion_norm_num_groups=2, motion_num_attention_heads=4
    )
    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    return AnimateDiffPipeline(unet=_unet(), motion_adapter=motion, scheduler=scheduler, **_latent())


def deepfloyd() -> DiffusionPipeline:
    """DeepFloyd IF paints pixels: there is no VAE."""
    tokenizer = t5_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=_PIXELS,
        in_channels=3,
        out_channels=6,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        **_SIMPLE_ATTENTION,
    )
    return IFPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        unet=unet,
        scheduler=DDPMScheduler(variance_type="learned_range"),
        watermarker=None,
        **_NO_CHECKER,
    )


def kandinsky_2_2() -> DiffusionPipeline:
    """Kandinsky 2.2 as one: a prior with encoders of its own, then the decoder's UNet; two denoising stages."""
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        in_channels=_LATENTS,
        out_channels=2 * _LATENTS,
        addition_embed_type="image",
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        **_SIMPLE_ATTENTION,
    )
    return KandinskyV22CombinedPipeline(
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        movq=_movq(),
        prior_prior=PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=WIDTH, num_layers=3),
        prior_image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**_VISION)),
        prior_text_encoder=clip_text_projected(tokenizer),
        prior_tokenizer=tokenizer,
        prior_scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0
        ),
        prior_image_processor=CLIPImageProcessor(size=_PIXELS, crop_size=_PIXELS),
    )


def kandinsky_3() -> DiffusionPipeline:
    """Kandinsky 3: its own UNet, T5."""
    tokenizer = t5_tokenizer()
    unet = Kandinsky3UNet(
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        block_out_channels=(32, 64),
        cross_attention_dim=4,
        encoder_hid_dim=WIDTH,
    )
    return Kandinsky3Pipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        unet=unet,
        scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        movq=_movq(),
    )


_UNET = {
    "sample_size": 8,
    "in_channels": _LATENTS,
    "out_channels": _LATENTS,
    "block_out_channels": (16, 32),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": WIDTH,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}


def _unet(**changed: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(**_UNET | changed)


def _latent() -> dict[str, object]:
    tokenizer = clip_tokenizer()
    vae = autoencoder(latent_channels=_LATENTS, scaling_factor=0.18215, use_quant_conv=True)
    return {"vae": vae, "text_encoder": clip_text(tokenizer), "tokenizer": tokenizer}


def _movq() -> VQModel:
    return VQModel(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=_LATENTS,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )
