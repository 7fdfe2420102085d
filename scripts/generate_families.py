"""Write src/roost/profiles/tensors.json and tokenizers.json for the families, or check that they are current.

Tensors come from the real classes, built from the families' published configs without memory. Run with --check to
compare only; versions other than the recorded ones are reported and pass.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from generate_class_facts import installed_versions, shown

PROFILES = Path(__file__).resolve().parent.parent / "src" / "roost" / "profiles"
TENSORS, TOKENIZERS = PROFILES / "tensors.json", PROFILES / "tokenizers.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def main(arguments: list[str]) -> int:
    versions = installed_versions()
    if arguments == ["--check"]:
        return check(versions)
    for path, text in documents(versions).items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {path.name} from {shown(versions)}")
    return 0


def check(versions: dict[str, str]) -> int:
    recorded = json.loads(TENSORS.read_text(encoding="utf-8"))["generated_from"]
    if recorded != versions:
        print(f"{TENSORS.name} is from {shown(recorded)}; {shown(versions)} are installed: not compared.")
        return 0
    stale = [path.name for path, text in documents(versions).items() if path.read_text(encoding="utf-8") != text]
    if stale:
        print(f"{' and '.join(stale)} differ from the installed libraries; run scripts/generate_families.py.")
    return int(bool(stale))


def documents(versions: dict[str, str]) -> dict[Path, str]:
    """The text of each generated file."""
    return {
        TENSORS: _text(versions, "components", component_trees()),
        TOKENIZERS: _text(versions, "classes", tokenizers()),
    }


def _text(versions: dict[str, str], name: str, entries: dict[str, Any]) -> str:
    """Canonical text: versions first, then one line an entry."""
    lines = [f"{json.dumps(key)}: {json.dumps(entries[key], separators=(',', ':'))}" for key in sorted(entries)]
    body = ",\n".join(lines)
    return f'{{"generated_from": {json.dumps(versions, sort_keys=True)},\n"{name}": {{\n{body}\n}}}}\n'


def component_trees() -> dict[str, Any]:
    """FAMILY/COMPONENT -> its tensors as a tree, or the key of an equal one that sorts earlier."""
    from published_tensors import published_tensors
    from tensor_trees import fold

    built: dict[str, Any] = {}
    owners: dict[str, str] = {}
    found: dict[str, Any] = {}
    for path in sorted((PROFILES / "families").glob("*.json")):
        family = json.loads(path.read_text(encoding="utf-8"))
        for component in sorted(family["weights"]):
            library, class_name = family["model_index"][component]
            config = family["configs"][f"{component}/config.json"]
            wanted = json.dumps([class_name, {key: config[key] for key in sorted(config) if key != "torch_dtype"}])
            if wanted not in built:
                built[wanted] = fold(published_tensors(library, class_name, config))
            text = json.dumps(built[wanted])
            key = f"{path.stem}/{component}"
            found[key] = owners.get(text, built[wanted])
            owners.setdefault(text, key)
    return found


def tokenizers() -> dict[str, Any]:
    """Tokenizer class -> the text of each file that its small local stand-in saves."""
    from local_tokenizers import LOCAL_TOKENIZERS

    found = {}
    for class_name, make in LOCAL_TOKENIZERS.items():
        with tempfile.TemporaryDirectory() as folder:
            make().save_pretrained(folder)
            paths = [Path(folder, name) for name in TOKENIZER_FILES if Path(folder, name).is_file()]
            found[class_name] = {path.name: path.read_text(encoding="utf-8") for path in paths}
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ["TRANSFORMERS_VERBOSITY"] = os.environ["DIFFUSERS_VERBOSITY"] = "critical"
    sys.exit(main(sys.argv[1:]))
