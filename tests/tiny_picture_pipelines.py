"""Directories of tiny pipelines that start from a picture."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from diffusers import DiffusionPipeline, WanImageToVideoPipeline, WanTransformer3DModel

import tiny_models
import tiny_video_pipelines
from random_weights import fill_with_random_weights

_LATENTS, _PICTURE_LATENTS_AND_MASK = 16, 20


def build_as(family: str, pipeline: str, directory: Path) -> Path:
    """The directory of text-to-picture ``family``, its index naming another class of the same components."""
    index = tiny_models.build(family, directory) / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": pipeline}))
    return directory


def build_wan_i2v(directory: Path) -> Path:
    """Wan2.2 image to video: two experts that see the picture's latents beside their own."""
    text_to_video = tiny_video_pipelines.wan_2_2()
    parts = {**text_to_video.components, "boundary_ratio": text_to_video.config.boundary_ratio}
    for name in ("transformer", "transformer_2"):
        config = dict(parts[name].config) | {"in_channels": _LATENTS + _PICTURE_LATENTS_AND_MASK}
        parts[name] = WanTransformer3DModel.from_config(config)
    pipeline: DiffusionPipeline = WanImageToVideoPipeline(**parts, image_processor=None, image_encoder=None)
    fill_with_random_weights(pipeline.components)
    pipeline.save_pretrained(directory)
    return directory


def build_qwen_edit(directory: Path) -> Path:
    """Qwen-Image-Edit, with the processor that its encoder looks through."""
    build_as("qwen-image", "QwenImageEditPipeline", directory)
    shutil.copytree(directory / "tokenizer", directory / "processor")
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2}
    (directory / "processor" / "preprocessor_config.json").write_text(json.dumps(settings))
    index = directory / "model_index.json"
    processor = {"processor": ["transformers", "Qwen2VLProcessor"]}
    index.write_text(json.dumps({**json.loads(index.read_text()), **processor}))
    return directory


_OF_FAMILY = {
    "FluxImg2ImgPipeline": "flux",
    "StableDiffusionXLImg2ImgPipeline": "sdxl",
    "QwenImageImg2ImgPipeline": "qwen-image",
    "LTXImageToVideoPipeline": "ltx",
}
BUILDERS: dict[str, Callable[[Path], Path]] = {
    **{name: functools.partial(build_as, family, name) for name, family in _OF_FAMILY.items()},
    "WanImageToVideoPipeline": build_wan_i2v,
}
