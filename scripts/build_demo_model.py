"""Build the demo's model directory: a small, real Wan2.2-like pipeline with random weights, about 50 MB."""

import argparse
import sys
from pathlib import Path

from random_weights import fill_with_random_weights
from tiny_wan import WanSize, wan_pipeline

DEMO_SIZE = WanSize(blocks=8, heads=4, head_dim=48, ffn_dim=768, text_blocks=6, text_dim=128, vae_base_dim=12)


def build_demo_model(directory: Path) -> int:
    """Write the demo pipeline into `directory`; the size of its weight files in bytes."""
    _report("making a pipeline with two experts of 8 blocks, a text encoder and a VAE")
    pipeline = wan_pipeline(DEMO_SIZE, two_experts=True)
    fill_with_random_weights(pipeline.components)
    _report(f"saving it to {directory}")
    pipeline.save_pretrained(directory)
    return sum(path.stat().st_size for path in directory.rglob("*.safetensors"))


def _report(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


def main() -> None:
    """Build the directory named on the command line and say in one line what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    weight_bytes = build_demo_model(directory)
    print(f"{directory}: Wan2.2-like demo pipeline, {weight_bytes / 2**20:.1f} MiB of random weights")


if __name__ == "__main__":
    main()
