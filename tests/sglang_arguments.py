"""Arguments of SGLang's diffusion commands, as its own sources have them but for two.

Source: sgl-project/sglang, python/sglang/multimodal_gen/runtime/server_args.py (add_cli_args, main after #34534), and
https://docs.sglang.io/diffusion/api/cli.html for what is generated. ``--vae-tiling`` and ``--vae-slicing`` were found
in another project's launcher alone, not in those. Only those that an export may need are kept.
"""

ARGUMENTS = frozenset(
    [
        "--model-path",
        "--performance-mode",
        "--component-residency",
        "--layerwise-prefetch-size",
        "--layerwise-resident-layers",
        "--layerwise-residency-policy",
        "--use-fsdp-inference",
        "--num-gpus",
        "--vae-tiling",
        "--vae-slicing",
        "--attention-backend",
        "--width",
        "--height",
        "--num-frames",
        "--num-inference-steps",
        "--guidance-scale",
        "--prompt",
    ]
)
RESIDENCY = ("resident", "component-offload", "layerwise-offload")
POLICIES = ("leading", "strided")
