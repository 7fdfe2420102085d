"""The command line that asks for the same plan again, whether it was asked for at a shell or in Python."""

from __future__ import annotations

import pytest

from roost.api.plans.commands import plan_command
from roost.api.requests.option_sets import PlanOptions
from roost.planner.search.remedies import Remedy


@pytest.mark.parametrize(
    "files", [("transformer=a b.gguf", "vae=v.safetensors"), {"transformer": "a b.gguf", "vae": "v.safetensors"}]
)
def test_each_file_is_an_option_of_its_own(files: object) -> None:
    spell = plan_command("flux.1-dev", PlanOptions(vram="12GiB", files=files))  # type: ignore[arg-type]
    line = spell(Remedy(given=(("--steps", "20"),)))
    assert line == (
        "roost plan flux.1-dev --vram 12GiB --file 'transformer=a b.gguf' --file vae=v.safetensors --steps 20"
    )
