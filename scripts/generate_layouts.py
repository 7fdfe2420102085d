"""Write src/roost/profiles/layouts.json: the original and llama.cpp names of the known models' tensors, with shapes.

Each original layout is checked as it is made: the converter that a run uses, diffusers' own where it has one, run on it
without memory, must give exactly the names and shapes that the class has. llama.cpp's names are those of the gguf
package. Run with --check to compare only; versions other than the recorded ones are reported and pass.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from generate_class_facts import installed_versions, shown
from inverted_converters import Shape, renamed, rules_of
from tensor_trees import fold

ROOT = Path(__file__).resolve().parent.parent

PROFILES = ROOT / "src" / "roost" / "profiles"
LAYOUTS, TENSORS = PROFILES / "layouts.json", PROFILES / "tensors.json"
# Text encoder's class -> its architecture in the gguf package, and what stands before its published names there.
_LLAMA_CPP = {
    "T5EncoderModel": ("T5ENCODER", ""),
    "UMT5EncoderModel": ("T5ENCODER", ""),
    "LlamaModel": ("LLAMA", "model."),
    "Qwen2_5_VLForConditionalGeneration": ("QWEN2VL", ""),
    "Qwen3Model": ("QWEN3", ""),
    "Qwen3ForCausalLM": ("QWEN3", ""),
    "Gemma3ForConditionalGeneration": ("GEMMA3", ""),
    "Mistral3ForConditionalGeneration": ("LLAMA", ""),
}
_APART = ("visual.", "vision_tower.", "multi_modal_projector.", "lm_head.")  # llama.cpp keeps these in another file

Tensors = list[tuple[str, Shape]]


def main(arguments: list[str]) -> int:
    versions = installed_versions()
    if arguments == ["--check"]:
        return check(versions)
    LAYOUTS.write_text(document(versions), encoding="utf-8", newline="\n")
    print(f"wrote {LAYOUTS.name} from {shown(versions)}")
    return 0


def check(versions: dict[str, str]) -> int:
    recorded = json.loads(LAYOUTS.read_text(encoding="utf-8"))["generated_from"]
    if recorded != versions:
        print(f"{LAYOUTS.name} is from {shown(recorded)}; {shown(versions)} are installed: not compared.")
        return 0
    if LAYOUTS.read_text(encoding="utf-8") == document(versions):
        return 0
    print(f"{LAYOUTS.name} differs from the installed libraries; run scripts/generate_layouts.py.")
    return 1


def document(versions: dict[str, str]) -> str:
    """Canonical text: versions first, then one line a layout."""
    lines = [f"{json.dumps(key)}: {json.dumps(tree, separators=(',', ':'))}" for key, tree in sorted(layouts().items())]
    body = ",\n".join(lines)
    return f'{{"generated_from": {json.dumps(versions, sort_keys=True)},\n"layouts": {{\n{body}\n}}}}\n'


def layouts() -> dict[str, Any]:
    """FAMILY/COMPONENT/LAYOUT -> its tensors as a tree, for each component that others only refer to."""
    from roost.profiles.published import expand

    found: dict[str, Any] = {}
    for key, tree in json.loads(TENSORS.read_text(encoding="utf-8"))["components"].items():
        if isinstance(tree, str):
            continue
        name, component = key.split("/")
        family = json.loads((PROFILES / "families" / f"{name}.json").read_text(encoding="utf-8"))
        class_name = family["model_index"][component][1]
        tensors = [(tensor, list(shape)) for tensor, shape in expand(tree)]
        config = family["configs"].get(f"{component}/config.json", {})
        rules = rules_of(class_name, config)
        if rules is not None:
            original = renamed(tensors, rules)
            if converts(original, tensors, class_name, config):
                found[f"{key}/original"] = fold(gathered(original))
        if class_name in _LLAMA_CPP:
            found[f"{key}/llama.cpp"] = fold(gathered(llama_cpp(tensors, *_LLAMA_CPP[class_name])))
    return found


def gathered(tensors: Tensors) -> Tensors:
    """Blocks of one list beside each other, in the order of their numbers: what belongs to a block may be apart."""

    def parts(name: str) -> tuple[object, ...]:
        return tuple((0, int(each), "") if each.isdigit() else (1, 0, each) for each in name.split("."))

    return sorted(tensors, key=lambda tensor: parts(tensor[0]))


def converts(original: Tensors, wanted: Tensors, class_name: str, config: dict[str, Any]) -> bool:
    """Whether diffusers' converter turns the original layout into the class's own tensors; says so where it doesn't.

    It needn't: some models of a class have levels that its converter or our inverse doesn't know. A layout that was
    recorded and converts no more differs from the file, which fails the check.
    """
    try:
        converted = conversion(original, wanted, class_name, config)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        print(f"a {class_name} is left out: its converter says {error!r}", file=sys.stderr)
        return False
    found = {name: list(tensor.shape) for name, tensor in converted.items()}
    needed = {_newer(name): shape for name, shape in wanted}
    differing = [name for name in {*found, *needed} if found.get(name) != needed.get(name)]
    if differing:
        said = f"{len(differing)} tensors differ, such as {sorted(differing)[:3]}"
        print(f"a {class_name} is left out: {said}", file=sys.stderr)
    return not differing


def conversion(original: Tensors, wanted: Tensors, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """What the converter makes of the original tensors, by the class's names."""
    import torch
    from diffusers.loaders import single_file_model

    from roost.pipelines.formats.conversions.by_names import converted_by_names
    from roost.pipelines.formats.conversions.converters import LAID_OUT_AS, PREFIXED
    from roost.pipelines.formats.conversions.original_names import rules_of as own_rules
    from roost.pipelines.formats.conversions.recording import stand_in

    own = own_rules(class_name, config)
    if own is not None:
        return converted_by_names(
            class_name, own, dict(wanted), {name: stand_in(name, each) for name, each in original}
        )
    loadable = single_file_model.SINGLE_FILE_LOADABLE_CLASSES
    convert = loadable[LAID_OUT_AS.get(class_name, class_name)]["checkpoint_mapping_fn"]
    prefix = PREFIXED.get(class_name, "")
    with torch.device("meta"):
        checkpoint = {prefix + name: torch.empty(shape) for name, shape in original}
    return convert(checkpoint, config=config)  # type: ignore[no-any-return]


def _newer(name: str) -> str:
    """The oldest published VAEs name their attention as no class does any more; diffusers renames it as it loads."""
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        name = name.replace(f".mid_block.attentions.0.{old}.", f".mid_block.attentions.0.{new}.")
    return name


def llama_cpp(tensors: Tensors, architecture: str, prefix: str) -> Tensors:
    """The same tensors under the names that llama.cpp gives them."""
    import gguf

    blocks = 1 + max(int(part) for name, _ in tensors for part in name.split(".") if part.isdigit())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture], blocks)
    found: Tensors = []
    for published, shape in tensors:
        name = published.removeprefix("language_model.")  # where a model also looks at pictures
        if name.startswith(_APART):
            continue
        new = names.get_name(prefix + name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise SystemExit(f"the gguf package knows no name of {name} in {architecture}")
        found.append((new, shape))
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ["TRANSFORMERS_VERBOSITY"] = os.environ["DIFFUSERS_VERBOSITY"] = "critical"
    sys.exit(main(sys.argv[1:]))
