"""A tiny pipeline that makes a video and its sound, each decoded by a VAE of its own: LTX-2."""

from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedTokenizerBase

from local_tokenizers import llama_tokenizer
from tiny_encoders import WIDTH

_LATENTS, _HEADS, _MELS, _LAYERS = 8, 2, 8, 3


def ltx2() -> DiffusionPipeline:
    """LTX-2: Gemma 3 and its connectors, one transformer for both streams, two VAEs and a vocoder."""
    tokenizer = llama_tokenizer()
    transformer = LTX2VideoTransformer3DModel(
        in_channels=_LATENTS,
        out_channels=_LATENTS,
        num_attention_heads=_HEADS,
        attention_head_dim=16,
        cross_attention_dim=32,
        audio_in_channels=2 * _MELS,
        audio_out_channels=2 * _MELS,
        audio_num_attention_heads=_HEADS,
        audio_attention_head_dim=16,
        audio_cross_attention_dim=32,
        num_layers=3,
        caption_channels=WIDTH,
        rope_double_precision=False,
        rope_type="split",
    )
    return LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_video_vae(),
        audio_vae=_audio_vae(),
        text_encoder=_gemma(tokenizer),
        tokenizer=tokenizer,
        connectors=_connectors(),
        transformer=transformer,
        vocoder=LTX2Vocoder(
            in_channels=2 * 4 * _MELS,
            hidden_channels=16,
            upsample_kernel_sizes=[4, 4],
            upsample_factors=[2, 2],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3, 5]],
            output_sampling_rate=16000,
        ),
    )


def _gemma(tokenizer: PreTrainedTokenizerBase) -> Gemma3ForConditionalGeneration:
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "head_dim": 16,
    }
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
        )
    )


def _connectors() -> LTX2TextConnectors:
    return LTX2TextConnectors(
        caption_channels=WIDTH,
        text_proj_in_factor=_LAYERS + 1,
        video_connector_num_attention_heads=_HEADS,
        video_connector_attention_head_dim=WIDTH // _HEADS,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=_HEADS,
        audio_connector_attention_head_dim=WIDTH // _HEADS,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
        rope_double_precision=False,
        rope_type="split",
    )


def _video_vae() -> AutoencoderKLLTX2Video:
    return AutoencoderKLLTX2Video(
        latent_channels=_LATENTS,
        block_out_channels=(8, 16, 32, 64),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        decoder_spatial_padding_mode="zeros",  # a small picture has no second pixel to reflect
    )


def _audio_vae() -> AutoencoderKLLTX2Audio:
    return AutoencoderKLLTX2Audio(
        base_channels=2 * _MELS,
        ch_mult=(1, 2, 2),
        num_res_blocks=1,
        resolution=32,
        mel_bins=4 * _MELS,
        latent_channels=2,
    )
