"""Stable Diffusion XL base 1.0: every component in float32 and, beside it, as the fp16 variant."""

from collections.abc import Mapping

from published.encoders import clip_vit_l, open_clip_vit_g
from published.repository import Component, Repository, Scheduler, Weights


def _both(float32_gb: float, float16_gb: float) -> Mapping[str, Weights]:
    return {
        "": Weights(dtype="F32", published_gb=float32_gb),
        "fp16": Weights(dtype="F16", published_gb=float16_gb),
    }


_UNET = Component(
    library="diffusers",
    class_name="UNet2DConditionModel",
    config={
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "use_linear_projection": True,
    },
    stored=_both(10.27, 5.135),
)
_VAE = Component(
    library="diffusers",
    class_name="AutoencoderKL",
    config={
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "force_upcast": True,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    stored=_both(0.3346, 0.1673),
)

SDXL = Repository(
    pipeline="StableDiffusionXLPipeline",
    diffusers_version="0.19.0.dev0",
    components={
        "text_encoder": clip_vit_l(_both(0.4923, 0.2461)),
        "text_encoder_2": open_clip_vit_g(_both(2.779, 1.389)),
        "unet": _UNET,
        "vae": _VAE,
    },
    tokenizers={"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer"},
    scheduler=Scheduler(
        class_name="EulerDiscreteScheduler",
        config={
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "clip_sample": False,
            "interpolation_type": "linear",
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "sample_max_value": 1.0,
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
            "steps_offset": 1,
            "timestep_spacing": "leading",
            "trained_betas": None,
            "use_karras_sigmas": False,
        },
    ),
    scalars={"force_zeros_for_empty_prompt": True},
)
