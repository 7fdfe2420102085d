"""FLUX.1-dev, stored in bfloat16."""

from published.encoders import clip_vit_l, t5_v1_1_xxl
from published.repository import GB, Component, Repository, Scheduler, Weights

_TRANSFORMER = Component(
    library="diffusers",
    class_name="FluxTransformer2DModel",
    config={
        "attention_head_dim": 128,
        "guidance_embeds": True,
        "in_channels": 64,
        "joint_attention_dim": 4096,
        "num_attention_heads": 24,
        "num_layers": 19,
        "num_single_layers": 38,
        "patch_size": 1,
        "pooled_projection_dim": 768,
    },
    stored={"": Weights(dtype="BF16", published_gb=23.80)},
    shard_bytes=10 * GB,
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
        "latent_channels": 16,
        "latents_mean": None,
        "latents_std": None,
        "layers_per_block": 2,
        "mid_block_add_attention": True,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 1024,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "use_post_quant_conv": False,
        "use_quant_conv": False,
    },
    stored={"": Weights(dtype="BF16", published_gb=0.1677)},
)

FLUX_1_DEV = Repository(
    pipeline="FluxPipeline",
    diffusers_version="0.30.0.dev0",
    components={
        "text_encoder": clip_vit_l({"": Weights(dtype="BF16", published_gb=0.2461)}),
        "text_encoder_2": t5_v1_1_xxl(),
        "transformer": _TRANSFORMER,
        "vae": _VAE,
    },
    tokenizers={"tokenizer": "CLIPTokenizer", "tokenizer_2": "T5TokenizerFast"},
    scheduler=Scheduler(
        class_name="FlowMatchEulerDiscreteScheduler",
        config={
            "base_image_seq_len": 256,
            "base_shift": 0.5,
            "max_image_seq_len": 4096,
            "max_shift": 1.15,
            "num_train_timesteps": 1000,
            "shift": 3.0,
            "use_dynamic_shifting": True,
        },
    ),
)
