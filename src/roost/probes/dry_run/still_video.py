"""A video whose frames are one and the same picture passes through diffusers' preprocessing without data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from PIL import Image


@contextmanager
def still_videos() -> Iterator[None]:
    """While entered, preprocessing of such a video gives zeros of its shape, which in the fake world have no data.

    81 frames of 1280×720 take diffusers ten seconds and 2.6 GB otherwise.
    """
    from diffusers.image_processor import VaeImageProcessor  # imported here: slow, and only for pipelines' calls

    found: Any = VaeImageProcessor
    resize, to_numpy, to_torch = found.resize, found.pil_to_numpy, found.numpy_to_pt

    def resize_once(self: Any, image: Any, height: int, width: int, *args: Any, **kwargs: Any) -> Any:
        same = isinstance(image, Image.Image) and image.size == (width, height)
        return image if same else resize(self, image, height, width, *args, **kwargs)

    def to_numpy_once(images: Any) -> Any:
        if isinstance(images, list) and len(images) > 1 and all(each is images[0] for each in images):
            one = to_numpy(images[:1])
            return numpy.broadcast_to(one, (len(images), *one.shape[1:]))
        return to_numpy(images)

    def to_torch_without_data(images: Any) -> Any:
        if images.strides[0] or len(images) == 1:
            return to_torch(images)
        count, *one = images.shape
        height, width, channels = (*one, 1)[:3]
        return torch.zeros(count, channels, height, width)

    found.resize, found.pil_to_numpy, found.numpy_to_pt = (
        resize_once,
        staticmethod(to_numpy_once),
        staticmethod(to_torch_without_data),
    )
    try:
        yield
    finally:
        found.resize, found.pil_to_numpy, found.numpy_to_pt = resize, staticmethod(to_numpy), staticmethod(to_torch)
