"""Small real tokenizers made on the spot: letters, a few words and special tokens; nothing downloaded."""

from collections.abc import Callable

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    ByT5Tokenizer,
    CLIPTokenizer,
    GemmaTokenizer,
    LlamaTokenizerFast,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
    T5TokenizerFast,
    TokenizersBackend,
)

_WORDS = ("a", "an", "the", "red", "fox", "cat", "dog", "in", "on", "of", "over", "snow", "sea", "city", "night")
_SYMBOLS = "".join(chr(code) for code in range(0x21, 0x7F))
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


_PARTS_TEMPLATE = (
    "<s>{% for message in messages %}{% set mark = 'SYSTEM_PROMPT' if message.role == 'system' else 'INST' %}"
    "[{{ mark }}]{% for part in message.content %}{{ part.text if part.type == 'text' else '[IMG]' }}{% endfor %}"
    "[/{{ mark }}]{% endfor %}"
)


def t5_tokenizer() -> PreTrainedTokenizerBase:
    """Unigram pieces with T5's special ids: pad 0, end 1, unknown 2."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in _WORDS]
    pieces += [(symbol, -6.0) for symbol in _SYMBOLS]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, additional_special_tokens=[], model_max_length=512)


def byt5_tokenizer() -> PreTrainedTokenizerBase:
    """Bytes, without the sentinels that only training needs."""
    return ByT5Tokenizer(extra_ids=0, additional_special_tokens=[], model_max_length=512)


def clip_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level letters; the end token has the highest id, where older CLIP models look for it."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, model_max_length=77)


def qwen2_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level letters and the chat markers of Qwen2 and Qwen3."""
    tokens = [*sorted(ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=_CHAT_TEMPLATE,
        model_max_length=1024,
    )


def qwen2_vl_tokenizer() -> PreTrainedTokenizerBase:
    """Qwen2's with the markers of pictures and videos, whose ids the encoder's config has: they stand for features."""
    plain = qwen2_tokenizer()
    numbers = (("<|vision_start|>", 151652), ("<|vision_end|>", 151653), ("<|image_pad|>", 151655))
    marks = {**dict(numbers), "<|video_pad|>": 151656}
    return Qwen2Tokenizer(
        vocab={**plain.get_vocab(), **marks},
        additional_special_tokens=["<|im_start|>", "<|im_end|>", *marks],
        chat_template=_CHAT_TEMPLATE,
        model_max_length=1024,
    )


def pixtral_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level letters and Mistral's markers with its ids; its chats are lists of parts."""
    marks = {"<unk>": 0, "<s>": 1, "</s>": 2, "[INST]": 3, "[/INST]": 4, "[IMG]": 10, "<pad>": 11, "[IMG_BREAK]": 12}
    marks |= {"[IMG_END]": 13, "[SYSTEM_PROMPT]": 17, "[/SYSTEM_PROMPT]": 18}
    letters = {letter: 1000 + number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    backend = Tokenizer(BPE(vocab={**marks, **letters}, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return TokenizersBackend(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=[*marks],
        chat_template=_PARTS_TEMPLATE,
        padding_side="left",
        model_max_length=131072,
    )


def gemma_tokenizer() -> PreTrainedTokenizerBase:
    """Single symbols with Gemma's special ids."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *_SYMBOLS]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=1024)


def llama_tokenizer() -> PreTrainedTokenizerBase:
    """Single symbols with Llama's special ids, padded with the end token."""
    tokens = ["<unk>", "<s>", "</s>", "▁", *_SYMBOLS]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return LlamaTokenizerFast(vocab=vocabulary, pad_token="</s>", padding_side="right", model_max_length=512)


LOCAL_TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "T5Tokenizer": t5_tokenizer,
    "T5TokenizerFast": t5_tokenizer,
    "ByT5Tokenizer": byt5_tokenizer,
    "CLIPTokenizer": clip_tokenizer,
    "GemmaTokenizerFast": gemma_tokenizer,
    "PixtralProcessor": pixtral_tokenizer,
    "Qwen2Tokenizer": qwen2_tokenizer,
    "Qwen2VLProcessor": qwen2_vl_tokenizer,
    "LlamaTokenizerFast": llama_tokenizer,
}
