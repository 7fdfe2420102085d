"""What it costs that people may edit a held component's weights between calls: a look at it, and no reading of weights.

    python benchmarks/edited_weights.py [-o FILE]

A component of 40 blocks with 30 weights each is called again and again under three placements. Timed is what the
runtime does between a generation's end and the next call's beginning (``rest`` and ``refresh``). One edit costs
bytes: the component comes in anew. The emulated device on a CPU: shares of a call, no seconds of a GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
sys.path[0] = str(Path(__file__).with_name("streaming_stacks"))

import argparse  # noqa: E402 - after the line above
import json  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from stacks import GIB, Stack, held, plan_of  # noqa: E402

from roost.residency.device.emulated import EmulatedDevice  # noqa: E402

BLOCKS, LAYERS, WIDTH, TOKENS, CALLS = 40, 15, 256, 256, 7
RESIDENT_SHARES = {"all streamed": 0.0, "half resident": 0.5, "all resident in its stage": 1.0}


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def figures(share: float) -> dict[str, Any]:
    """Medians of ``CALLS`` calls, each a generation of its own."""
    module, x = Stack([Block() for _ in range(BLOCKS)]).eval(), torch.zeros(TOKENS, WIDTH)
    call_s, between_s = [], []
    with (
        torch.no_grad(),
        EmulatedDevice(GIB) as device,
        held(module, plan_of(module, round(share * BLOCKS)), device) as runtime,
    ):
        component = runtime.components["transformer"]
        module(x)
        for _ in range(CALLS):
            runtime.end_call()  # it waits for the device, as it does without any look at weights
            began_s = time.perf_counter()
            component.rest()
            component.refresh()
            between_s.append(time.perf_counter() - began_s)
            uploaded = device.activity.copied_bytes("h2d")
            module(x)
            call_s.append(time.perf_counter() - began_s)
        unedited_bytes = device.activity.copied_bytes("h2d") - uploaded
        next(module.parameters()).data.mul_(1.0)
        runtime.end_call()
        uploaded = device.activity.copied_bytes("h2d")
        module(x)
        edited_bytes = device.activity.copied_bytes("h2d") - uploaded
    between, call = statistics.median(between_s), statistics.median(call_s)
    return {
        "between_s": between,
        "call_s": call,
        "share_of_a_call": between / call,
        "uploaded_bytes": unedited_bytes,
        "uploaded_bytes_after_an_edit": edited_bytes,
        "weights_bytes": sum(each.nbytes for each in module.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    output = parser.parse_args().output
    found = {name: figures(share) for name, share in RESIDENT_SHARES.items()}
    document = {"device": "emulated", "weights": BLOCKS * LAYERS * 2, "torch": torch.__version__, "placements": found}
    for name, each in found.items():
        print(
            f"{name}: {each['between_s'] * 1e3:.2f} ms of {each['call_s'] * 1e3:.0f} ms, {each['share_of_a_call']:.2%}"
        )
    if output is not None:
        output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
