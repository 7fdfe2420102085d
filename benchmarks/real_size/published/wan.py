"""Wan 2.1 and 2.2: diffusion transformers stored in float32, UMT5-XXL, and two generations of VAE."""

from typing import Any

from published.encoders import umt5_xxl
from published.repository import GB, Component, Repository, Scheduler, Weights

_TOKENIZERS = {"tokenizer": "T5TokenizerFast"}
_VAE_2_2_MEAN = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891),
    *(0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723),
    *(-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
_VAE_2_2_STD = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901),
    *(0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944),
    *(0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)


def _transformer(published_gb: float, shard_bytes: int = 5 * GB, **sizes: Any) -> Component:
    config = {
        "added_kv_proj_dim": None,
        "attention_head_dim": 128,
        "cross_attn_norm": True,
        "eps": 1e-06,
        "freq_dim": 256,
        "image_dim": None,
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": [1, 2, 2],
        "pos_embed_seq_len": None,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024,
        "text_dim": 4096,
        **sizes,
    }
    return Component(
        library="diffusers",
        class_name="WanTransformer3DModel",
        config=config,
        stored={"": Weights(dtype="F32", published_gb=published_gb)},
        shard_bytes=shard_bytes,
    )


def _vae(published_gb: float, **sizes: Any) -> Component:
    config = {
        "attn_scales": [],
        "dim_mult": [1, 2, 4, 4],
        "dropout": 0.0,
        "num_res_blocks": 2,
        "temperal_downsample": [False, True, True],
        **sizes,
    }
    return Component(
        library="diffusers",
        class_name="AutoencoderKLWan",
        config=config,
        stored={"": Weights(dtype="F32", published_gb=published_gb)},
    )


def _scheduler(flow_shift: float) -> Scheduler:
    config = {
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "final_sigmas_type": "zero",
        "flow_shift": flow_shift,
        "lower_order_final": True,
        "num_train_timesteps": 1000,
        "predict_x0": True,
        "prediction_type": "flow_prediction",
        "solver_order": 2,
        "solver_type": "bh2",
        "timestep_spacing": "linspace",
        "use_flow_sigmas": True,
    }
    return Scheduler(class_name="UniPCMultistepScheduler", config=config)


_VAE_2_1 = _vae(0.5076, base_dim=96, z_dim=16)
_VAE_2_2 = _vae(
    2.819,
    base_dim=160,
    decoder_base_dim=256,
    in_channels=12,
    is_residual=True,
    latents_mean=list(_VAE_2_2_MEAN),
    latents_std=list(_VAE_2_2_STD),
    out_channels=12,
    patch_size=2,
    scale_factor_spatial=16,
    scale_factor_temporal=4,
    z_dim=48,
)
_UMT5_FLOAT32 = umt5_xxl("F32", 22.72)
_UMT5_BFLOAT16 = umt5_xxl("BF16", 11.36)
_14B = _transformer(57.15, ffn_dim=13824, num_attention_heads=40, num_layers=40)
_14B_FROM_IMAGE = _transformer(57.16, ffn_dim=13824, in_channels=36, num_attention_heads=40, num_layers=40)
_5B = _transformer(
    20.0,
    shard_bytes=10 * GB,
    ffn_dim=14336,
    in_channels=48,
    num_attention_heads=24,
    num_layers=30,
    out_channels=48,
)
_1_3B = _transformer(5.676, ffn_dim=8960, num_attention_heads=12, num_layers=30)

WAN_2_2_T2V_A14B = Repository(
    pipeline="WanPipeline",
    diffusers_version="0.35.0.dev0",
    components={
        "text_encoder": _UMT5_BFLOAT16,
        "transformer": _14B,
        "transformer_2": _14B,
        "vae": _VAE_2_1,
    },
    tokenizers=_TOKENIZERS,
    scheduler=_scheduler(3.0),
    scalars={"boundary_ratio": 0.875},
)
WAN_2_2_I2V_A14B = Repository(
    pipeline="WanImageToVideoPipeline",
    diffusers_version="0.35.0.dev0",
    components={
        "text_encoder": _UMT5_BFLOAT16,
        "transformer": _14B_FROM_IMAGE,
        "transformer_2": _14B_FROM_IMAGE,
        "vae": _VAE_2_1,
    },
    tokenizers=_TOKENIZERS,
    scheduler=_scheduler(3.0),
    scalars={"boundary_ratio": 0.9},
    absent=("image_encoder", "image_processor"),
)
WAN_2_2_TI2V_5B = Repository(
    pipeline="WanPipeline",
    diffusers_version="0.35.0.dev0",
    components={"text_encoder": _UMT5_BFLOAT16, "transformer": _5B, "vae": _VAE_2_2},
    tokenizers=_TOKENIZERS,
    scheduler=_scheduler(5.0),
    scalars={"boundary_ratio": None, "expand_timesteps": True},
    absent=("transformer_2",),
)
WAN_2_1_14B = Repository(
    pipeline="WanPipeline",
    diffusers_version="0.33.0.dev0",
    components={"text_encoder": _UMT5_FLOAT32, "transformer": _14B, "vae": _VAE_2_1},
    tokenizers=_TOKENIZERS,
    scheduler=_scheduler(3.0),
)
WAN_2_1_1_3B = Repository(
    pipeline="WanPipeline",
    diffusers_version="0.33.0.dev0",
    components={"text_encoder": _UMT5_FLOAT32, "transformer": _1_3B, "vae": _VAE_2_1},
    tokenizers=_TOKENIZERS,
    scheduler=_scheduler(3.0),
)
