"""Tokenizers in the metadata of GGUF files: ids as those of the tokenizer's own directory, or none at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import sentencepiece
import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerBase, Qwen2TokenizerFast, T5TokenizerFast

from roost.api.runs.carried_tokenizers import Carried, carried_tokenizer
from roost.probes.files.weights import read_weight_file
from stored_weights import Keys, write_gguf

_PROMPTS = (
    "a red fox, jumping over 1234 lazy dogs' backs",
    "  two  spaces,\ta tab\nand a line  ",
    "ﬁne Ⅷ ① ﾊﾝｶｸ \uff26\uff35\uff2c",
    "nai\u0308ve cafe\u0301, naïve café 東京の夜 🦊",
    "<|im_start|>user<think></s> <unk> <extra_id_0><extra_id_99>",
    "fox " * 900,
    "",
)
_CORPUS = [
    *("a red fox jumps over the lazy dog by night", "naïve café, Ein Füchslein läuft", "東京の夜、雨", "fine VIII 1"),
    *("users and assistants think of foxes' tails", "one two three, 1234 spaces and lines"),
]
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


def _written(path: Path, keys: Keys, **texts: str) -> Path:
    """A vocabulary as llama.cpp's converter writes it, with a tensor of no use."""
    return write_gguf(path, "t5encoder", {"blk.0.attn_q.weight": torch.zeros(2, 2)}, {}, {**keys, **texts})


def _carried(path: Path, class_name: str, pipeline: str | None) -> Carried:
    return carried_tokenizer(read_weight_file(str(path)), class_name, pipeline)


def _loaded(carried: Carried, folder: Path, kind: Any) -> PreTrainedTokenizerBase:
    assert carried.why_not is None
    folder.mkdir()
    for name, content in carried.files.items():
        (folder / name).write_bytes(content)
    made: PreTrainedTokenizerBase = kind.from_pretrained(folder)
    return made


def _assert_same_ids(made: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase) -> None:
    for prompt in _PROMPTS:
        for options in ({}, {"padding": "max_length", "max_length": 32, "truncation": True}):
            assert made(prompt, **options).data == own(prompt, **options).data


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedTokenizerBase]:
    """A SentencePiece tokenizer's own directory made into a GGUF, its vocabulary padded to the model's rows."""
    folder = tmp_path_factory.mktemp("t5")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS * 20), model_prefix=str(folder / "spiece"), vocab_size=70, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", user_defined_symbols=["<fox>"],
    )  # fmt: skip
    proto = ModelProto()
    proto.ParseFromString((folder / "spiece.model").read_bytes())
    count = len(proto.pieces)
    tokens = [each.piece for each in proto.pieces] + [f"[PAD{count + index}]" for index in range(128)]
    scores = [each.score for each in proto.pieces] + [-10000.0] * 128
    types = [int(each.type) for each in proto.pieces] + [_UNUSED] * 128
    arrays = {"tokens": tokens, "scores": scores, "token_type": types}
    charsmap = {"precompiled_charsmap": proto.normalizer_spec.precompiled_charsmap}
    return _written(folder / "t5.gguf", arrays | charsmap, model="t5", pre="default"), (
        T5TokenizerFast.from_pretrained(folder)
    )


def test_t5s_ids_are_those_of_its_directory(t5: tuple[Path, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    path, own = t5
    made = _loaded(_carried(path, "T5TokenizerFast", "FluxPipeline"), tmp_path / "made", T5TokenizerFast)
    assert len(own("ﬁne Ⅷ").input_ids) > 3
    assert len(made) == len(own)
    _assert_same_ids(made, own)


def test_t5s_added_marks_are_left_to_its_class(t5: tuple[Path, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    """Converters that find a directory's added_tokens.json write the marks in place of padding."""
    own, count = t5[1], 70
    proto = ModelProto()
    proto.ParseFromString((t5[0].parent / "spiece.model").read_bytes())
    marks = [f"<extra_id_{99 - index}>" for index in range(100)]
    arrays = {
        "tokens": [each.piece for each in proto.pieces] + marks + [f"[PAD{count + 100}]"],
        "scores": [each.score for each in proto.pieces] + [-1000.0] * 101,
        "token_type": [int(each.type) for each in proto.pieces] + [_USER_DEFINED] * 100 + [_UNUSED],
        "precompiled_charsmap": proto.normalizer_spec.precompiled_charsmap,
    }
    path = _written(tmp_path / "t5.gguf", arrays, model="t5")
    _assert_same_ids(_loaded(_carried(path, "T5Tokenizer", None), tmp_path / "made", T5TokenizerFast), own)


def _byte_level() -> ByteLevelBPETokenizer:
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(_CORPUS * 20, vocab_size=330, show_progress=False)
    return made


def _qwen_arrays(made: ByteLevelBPETokenizer, folder: Path) -> dict[str, Sequence[Any]]:
    made.save_model(str(folder))
    words = sorted(made.get_vocab(), key=lambda word: made.get_vocab()[word])
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    kinds = [_NORMAL] * len(words) + [_CONTROL] * 3 + [_USER_DEFINED] * 2 + [_UNUSED] * 2
    return {"tokens": [*words, *_ADDED, "[PAD7]", "[PAD8]"], "token_type": kinds, "merges": merges}


@pytest.fixture
def qwen(tmp_path: Path) -> tuple[dict[str, Sequence[Any]], PreTrainedTokenizerBase]:
    """A byte-level tokenizer's own directory, and its vocabulary as a GGUF has it."""
    folder = tmp_path / "own"
    folder.mkdir()
    arrays = _qwen_arrays(_byte_level(), folder)
    own = Qwen2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    own.add_tokens([AddedToken(each, special=each.startswith("<|"), normalized=False) for each in _ADDED])
    own.save_pretrained(folder)
    return arrays, Qwen2TokenizerFast.from_pretrained(folder)


def test_qwens_ids_are_those_of_its_directory(
    qwen: tuple[dict[str, Sequence[Any]], PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    arrays, own = qwen
    path = _written(tmp_path / "q.gguf", arrays, model="gpt2", pre="qwen2")
    made = _loaded(_carried(path, "Qwen2Tokenizer", "ZImagePipeline"), tmp_path / "made", Qwen2TokenizerFast)
    assert made.pad_token == "<|endoftext|>"
    assert made.padding_side == "right"
    _assert_same_ids(made, own)


@pytest.mark.parametrize(("thinking", "after"), [(True, ""), (False, "<think>\n\n</think>\n\n")])
def test_qwen3s_prompts_are_put_as_by_its_own_template(
    qwen: tuple[dict[str, Sequence[Any]], PreTrainedTokenizerBase], thinking: bool, after: str, tmp_path: Path
) -> None:
    path = _written(tmp_path / "q.gguf", qwen[0], model="gpt2", pre="qwen2")
    made = _loaded(_carried(path, "Qwen2TokenizerFast", "Flux2KleinPipeline"), tmp_path / "made", Qwen2TokenizerFast)
    message = [{"role": "user", "content": " a fox\n "}]
    text = made.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
    assert text == f"<|im_start|>user\n a fox\n <|im_end|>\n<|im_start|>assistant\n{after}"


def test_what_would_make_other_ids_is_not_taken(
    qwen: tuple[dict[str, Sequence[Any]], PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    arrays = qwen[0]

    def why_not(name: str, class_name: str, pipeline: str, changed: dict[str, Sequence[Any]], **texts: str) -> str:
        carried = _carried(_written(tmp_path / f"{name}.gguf", changed, **texts), class_name, pipeline)
        assert not carried.files
        return carried.why_not or ""

    qwen2 = {"model": "gpt2", "pre": "qwen2"}
    others = "only T5's and Qwen2's"
    assert others in why_not("a", "LlamaTokenizerFast", "HunyuanVideoPipeline", arrays, model="gpt2", pre="llama-bpe")
    assert others in why_not("b", "Qwen2Tokenizer", "ZImagePipeline", arrays, model="gpt2", pre="llama-bpe")
    assert others in why_not("c", "CLIPTokenizer", "FluxPipeline", arrays, **qwen2)
    assert "needs more of a tokenizer" in why_not("d", "Qwen2TokenizerFast", "HunyuanVideo15Pipeline", arrays, **qwen2)
    moved = list(arrays["token_type"])
    moved[5] = _CONTROL
    for name, changed in (
        ("e", arrays | {"token_type": moved}),
        ("f", arrays | {"token_type": arrays["token_type"][:-1]}),
        ("g", {key: each for key, each in arrays.items() if key != "merges"}),
        ("h", arrays | {"tokens": [each.replace("<|endoftext|>", "<|end|>") for each in arrays["tokens"]]}),
    ):
        assert "isn't whole" in why_not(name, "Qwen2Tokenizer", "ZImagePipeline", changed, **qwen2)
    whole: dict[str, Sequence[Any]] = {"tokens": ["<unk>", "a"], "scores": [0.0, 1.0], "token_type": [2, 1]}
    for name, wrong in (("k", {"tokens": [1, 2]}), ("l", {"scores": ["0", "1"]}), ("m", {"token_type": [2, 9]})):
        assert "isn't whole" in why_not(name, "T5Tokenizer", "FluxPipeline", {**whole, **wrong}, model="t5")
    assert "isn't whole" in why_not("i", "T5Tokenizer", "FluxPipeline", {"tokens": ["a", "b"]}, model="t5")


def test_a_file_without_a_tokenizer_says_nothing(tmp_path: Path) -> None:
    assert _carried(_written(tmp_path / "none.gguf", {}), "T5Tokenizer", None) == Carried()
