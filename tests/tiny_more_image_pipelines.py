"""Tiny image pipelines of many more classes, transformers of other makes; three blocks a stack."""

from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    DDPMScheduler,
    DiffusionPipeline,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
)
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerBase,
    UMT5Config,
    UMT5EncoderModel,
)

from local_tokenizers import llama_tokenizer, t5_tokenizer
from tiny_encoders import WIDTH
from tiny_flux_pipelines import flow, t5, vae

_LATENTS, _PACKED = 4, 16  # FLUX and its kin see four latents of a square as one
_HEADS, _HEAD_DIM = 2, 16
_WIDTHS = {"attention_head_dim": _HEAD_DIM, "num_attention_heads": _HEADS}
_TWO_STACKS = {"num_layers": 3, "num_single_layers": 3, **_WIDTHS}
_AXES = (4, 6, 6)


def sana() -> DiffusionPipeline:
    """Linear attention, a deep-compression autoencoder, Gemma 2."""
    layers = {"ResBlock": (), "EfficientViTBlock": (5,)}
    compressing = AutoencoderDC(
        latent_channels=_LATENTS,
        attention_head_dim=2,
        encoder_block_types=tuple(layers),
        decoder_block_types=tuple(layers),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=tuple(layers.values()),
        decoder_qkv_multiscales=tuple(layers.values()),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
    )
    transformer = SanaTransformer2DModel(
        in_channels=_LATENTS,
        out_channels=_LATENTS,
        num_layers=3,
        num_cross_attention_heads=_HEADS,
        cross_attention_head_dim=_HEAD_DIM,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        sample_size=16,  # none of the published ones, so that sizes are not rounded to those
        **_WIDTHS,
    )
    tokenizer = llama_tokenizer()
    return SanaPipeline(
        tokenizer=tokenizer, text_encoder=_gemma(tokenizer), vae=compressing, transformer=transformer, scheduler=flow()
    )


def lumina2() -> DiffusionPipeline:
    """Two refiner stacks beside the main one, Gemma 2."""
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=_LATENTS,
        hidden_size=WIDTH,
        num_layers=3,
        num_refiner_layers=3,
        num_attention_heads=_HEADS,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=_AXES,
        axes_lens=(1024, 64, 64),
        cap_feat_dim=WIDTH,
    )
    tokenizer = llama_tokenizer()
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=flow(),
        vae=vae(shifted=True),
        text_encoder=_gemma(tokenizer),
        tokenizer=tokenizer,
    )


def auraflow() -> DiffusionPipeline:
    """Joint and single blocks, UMT5."""
    tokenizer = t5_tokenizer()
    config = UMT5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=_HEAD_DIM, d_ff=64, num_layers=3, num_heads=_HEADS
    )
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=3,
        num_single_dit_layers=3,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        pos_embed_max_size=256,
        **_WIDTHS,
    )
    return AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(config),
        vae=vae(),
        transformer=transformer,
        scheduler=flow(),
    )


def cogview3() -> DiffusionPipeline:
    """CogView3-Plus: T5 and a scheduler of a video family."""
    transformer = CogView3PlusTransformer2DModel(
        in_channels=_LATENTS,
        out_channels=_LATENTS,
        num_layers=3,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=8,
        **_WIDTHS,
    )
    return CogView3PlusPipeline(vae=vae(), transformer=transformer, scheduler=CogVideoXDDIMScheduler(), **t5())


def hunyuan_dit() -> DiffusionPipeline:
    """HunyuanDiT: BERT and T5 beside each other, long skips between blocks."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, model_max_length=77)
    bert = BertConfig(
        vocab_size=len(pieces),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=_HEADS,
    )
    second = t5()
    transformer = HunyuanDiT2DModel(
        sample_size=16,
        num_layers=4,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=_LATENTS,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
        hidden_size=24,
    )
    return HunyuanDiTPipeline(
        vae=vae(),
        text_encoder=BertModel(bert),
        tokenizer=tokenizer,
        text_encoder_2=second["text_encoder"],
        tokenizer_2=second["tokenizer"],
        transformer=transformer,
        scheduler=DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _gemma(tokenizer: PreTrainedTokenizerBase) -> Gemma2Model:
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=_HEADS,
        num_key_value_heads=1,
        head_dim=_HEAD_DIM,
    )
    return Gemma2Model(config)
