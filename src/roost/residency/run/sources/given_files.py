"""Components whose weights lie in files of their own, loaded as those files store them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from roost.errors import PlanMismatch
from roost.facts.byte_ranges import byte_ranges
from roost.facts.model import ClassFacts, GivenFile
from roost.pipelines.formats.linears import PACKED
from roost.pipelines.formats.modules import build_from_file
from roost.pipelines.formats.skeletons import ComponentConfig
from roost.plan import ComponentPlan
from roost.residency.run.components import LoadComponent, finish_component, read_component
from roost.residency.weights.mapped_masters import StoredTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFiles:
    """The files by component, and what the libraries' classes keep in float32; the others are read ``otherwise``."""

    files: Mapping[str, GivenFile] = field(default_factory=dict)
    class_facts: Mapping[str, ClassFacts] = field(default_factory=dict)
    otherwise: LoadComponent = read_component

    def __contains__(self, name: str) -> bool:
        return name in self.files

    @property
    def only_reads(self) -> bool:
        """Whether the others are read from the model's files."""
        return self.otherwise is read_component

    def load(self, name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        """One component in host memory, finished as planned. Raises what ``read`` does."""
        return finish_component(name, self.read(name, plan, model_dir), plan)

    def read(self, name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        """The component with its file's weights, as far as they need no conversion views of the mapped file.

        Raises PlanMismatch for a file that the plan isn't for, InvalidFile for one that can't be read.
        """
        given = self.files.get(name)
        if given is None:
            return self.otherwise(name, plan, model_dir)
        if plan.source is None or plan.source.fingerprint != given.file.sha256:
            raise PlanMismatch(f"{given.file.path} is not the file that this plan is for; plan again with it.")
        return self._built(name, plan, model_dir, with_data=True)

    def shell(self, name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        """The component in memory that nobody touched."""
        return self._built(name, plan, model_dir, with_data=False)

    def stored(self, name: str) -> Iterator[StoredTensor]:
        """Where the component's file has the very bytes of its tensors, by their names in its module."""
        given = self.files[name]
        for each in byte_ranges(given.file, given.recipe):
            dtype: torch.dtype = getattr(torch, each.dtype)
            layer, _, leaf = each.name.rpartition(".")
            for key in (each.name, f"{layer}.{PACKED}") if leaf == "weight" else (each.name,):
                yield StoredTensor(Path(given.file.path), key, each.offset, each.bytes, dtype, each.shape)

    def _built(self, name: str, plan: ComponentPlan, model_dir: Path, *, with_data: bool) -> torch.nn.Module:
        facts = self.class_facts.get(plan.class_name, ClassFacts())
        config = ComponentConfig(name=name, described=plan, config_dir=model_dir, facts=facts)
        return build_from_file(config, self.files[name].file, self.files[name].recipe, with_data=with_data)
