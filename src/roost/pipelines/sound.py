"""How fast the sound of a pipeline is to be played, as its components' configs say."""

from __future__ import annotations

from typing import Any

# What makes the waveform goes first.
_COMPONENTS = ("vocoder", "audio_vae", "vae", "unet", "feature_extractor")
_NAMES = ("output_sampling_rate", "sampling_rate", "sample_rate")


def samples_per_s(pipeline: Any) -> int | None:
    """Samples a second; None where nothing says it."""
    for component in _COMPONENTS:
        part = getattr(pipeline, component, None)
        for place in (getattr(part, "config", None), part):
            for name in _NAMES:
                rate = getattr(place, name, None)
                if type(rate) is int and rate > 0:
                    return rate
    return None
