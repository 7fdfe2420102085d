"""Components that load no weights (schedulers, tokenizers, processors), and whether their files are there."""

from __future__ import annotations

import re
from collections.abc import Container

# By how the libraries name them.
_WEIGHTLESS = re.compile(
    r"(Scheduler|Tokenizer(Fast)?|Processor(Fast)?|FeatureExtractor|Guidance|Guider|MistralCommonBackend)$"
)
# Of a pipeline's own library, which fetches what it needs by itself: in the directory there is a config, or nothing.
_CHECKER = re.compile(r"(Checker|Guardrail|Guard|Watermarker?)$")
_TOKENIZER = re.compile(r"(?<!ByT5)Tokenizer(Fast)?$")  # a byte tokenizer needs no vocabulary
_IMAGE_PROCESSOR = re.compile(r"(ImageProcessor(Fast)?|FeatureExtractor)$")
_VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model"),
    *("sentencepiece.bpe.model", "tekken.json", "qwen.tiktoken", "source.spm"),
)
_PROCESSOR_CONFIGS = ("preprocessor_config.json", "processor_config.json", "feature_extractor_config.json")


def is_weightless_class(class_name: str) -> bool:
    return _WEIGHTLESS.search(class_name) is not None


def is_checker_class(class_name: str) -> bool:
    """Whether it looks at results or prompts, by its name; one may have weights or none."""
    return _CHECKER.search(class_name) is not None


def lacking_file(class_name: str, names: Container[str]) -> str | None:
    """What a folder that holds ``names`` lacks of such a class, in words; None when it lacks nothing that is known."""
    if class_name.endswith("Scheduler"):
        return _unless_any(("scheduler_config.json", "config.json"), names, "scheduler_config.json")
    if _TOKENIZER.search(class_name):
        return _unless_any(_VOCABULARIES, names, "vocabulary")
    if _IMAGE_PROCESSOR.search(class_name):
        return _unless_any(_PROCESSOR_CONFIGS, names, "preprocessor_config.json")
    return None


def _unless_any(wanted: tuple[str, ...], names: Container[str], words: str) -> str | None:
    return None if any(name in names for name in wanted) else words
