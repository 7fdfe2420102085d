"""Write a published model repository at its real size as sparse files: true headers, almost no disk."""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from published import REPOSITORIES
from published.repository import GB, Component, Repository
from published.tensors import build_on_meta, published_shapes
from sparse_checkpoint import CheckpointLayout, write_checkpoint

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))  # tokenizers are shared with the demo
from local_tokenizers import LOCAL_TOKENIZERS

_BASE_NAMES = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_TORCH_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSize:
    """The files of one stored set of a component, beside the size its publisher's files have."""

    component: str
    variant: str
    dtype: str
    written_bytes: int
    published_gb: float

    @property
    def deviation(self) -> float:
        """Relative difference from the published size."""
        return self.written_bytes / (self.published_gb * GB) - 1


def write_model_directory(name: str, directory: Path) -> list[StoredSize]:
    """Write repository `name` (a key of `REPOSITORIES`) into `directory`; one size per stored set."""
    repository = REPOSITORIES[name]
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "model_index.json", _model_index(repository))
    for folder, class_name in repository.tokenizers.items():
        LOCAL_TOKENIZERS[class_name]().save_pretrained(directory / folder)
    _write_scheduler(directory / "scheduler", repository)
    sizes: list[StoredSize] = []
    for folder, component in repository.components.items():
        sizes += _write_component(directory / folder, component, repository.diffusers_version)
    return sizes


def _model_index(repository: Repository) -> dict[str, Any]:
    entries: dict[str, Any] = dict(repository.scalars)
    entries["scheduler"] = ["diffusers", repository.scheduler.class_name]
    entries |= {folder: ["transformers", class_name] for folder, class_name in repository.tokenizers.items()}
    entries |= {folder: [part.library, part.class_name] for folder, part in repository.components.items()}
    entries |= {folder: [None, None] for folder in repository.absent}
    head = {"_class_name": repository.pipeline, "_diffusers_version": repository.diffusers_version}
    return head | dict(sorted(entries.items()))


def _write_scheduler(folder: Path, repository: Repository) -> None:
    folder.mkdir(exist_ok=True)
    scheduler = repository.scheduler
    head = {"_class_name": scheduler.class_name, "_diffusers_version": repository.diffusers_version}
    _write_json(folder / "scheduler_config.json", head | dict(scheduler.config))


def _write_component(folder: Path, component: Component, diffusers_version: str) -> list[StoredSize]:
    folder.mkdir(exist_ok=True)
    module = build_on_meta(component)
    _write_json(folder / "config.json", _config(component, module, diffusers_version))
    shapes = published_shapes(component, module)
    sizes = []
    for variant, weights in component.stored.items():
        layout = CheckpointLayout(
            base_name=_BASE_NAMES[component.library],
            variant=variant,
            dtype=weights.dtype,
            shard_bytes=component.shard_bytes,
        )
        size = StoredSize(
            component=folder.name,
            variant=variant,
            dtype=weights.dtype,
            written_bytes=write_checkpoint(folder, shapes, layout),
            published_gb=weights.published_gb,
        )
        sizes.append(size)
    return sizes


def _config(component: Component, module: Any, diffusers_version: str) -> dict[str, Any]:
    if component.library == "diffusers":
        full = {key: value for key, value in module.config.items() if not key.startswith("_")}
        head = {"_class_name": component.class_name, "_diffusers_version": diffusers_version}
        return head | dict(sorted(full.items()))
    dtype = _TORCH_DTYPES[component.stored[""].dtype]
    return {"architectures": [component.class_name], **component.config, "torch_dtype": dtype}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _print_sizes(sizes: list[StoredSize]) -> None:
    print(f"{'component':<16} {'variant':<8} {'stored':<7} {'GB':>8} {'published':>10} {'off':>8}")
    for size in sizes:
        print(
            f"{size.component:<16} {size.variant or '-':<8} {size.dtype:<7} {size.written_bytes / GB:>8.3f}"
            f" {size.published_gb:>10.4g} {size.deviation:>8.2%}"
        )


def main() -> int:
    """Write one directory and compare it with the published sizes; 1 if any differs by over 0.5 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(REPOSITORIES))
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    sizes = write_model_directory(arguments.name, arguments.directory)
    _print_sizes(sizes)
    return int(any(abs(size.deviation) > _TOLERANCE for size in sizes))
