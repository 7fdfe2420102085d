"""Small real tokenizers made on the spot: letters, a few words and special tokens; nothing downloaded."""

from collections.abc import Callable

from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    ByT5Tokenizer,
    CLIPTokenizer,
    LlamaTokenizerFast,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
    T5TokenizerFast,
)

_WORDS = ("a", "an", "the", "red", "fox", "cat", "dog", "in", "on", "of", "over", "snow", "sea", "city", "night")
_SYMBOLS = "".join(chr(code) for code in range(0x21, 0x7F))
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
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
    "Qwen2Tokenizer": qwen2_tokenizer,
    "LlamaTokenizerFast": llama_tokenizer,
}
