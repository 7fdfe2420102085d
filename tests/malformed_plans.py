"""Plan files that are wrong: whole texts, and single edits of a valid plan, with what the error must name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Edit = Callable[[dict[str, Any]], object]

TEXTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a mapping"),
    "only a comment": (b"# wan.yaml\n", "is not a mapping"),
    "null": (b"null\n", "is not a mapping"),
    "a list": (b"- schema: 1\n", "is not a mapping"),
    "a number": (b"42", "is not a mapping"),
    "prose": (b"Please run this on the big machine.\n", "is not a mapping"),
    "an unclosed list": (b"load_order: [vae", "is not a plan's YAML"),
    "an unclosed quote": (b"schema: 'one", "is not a plan's YAML"),
    "tabs for spaces": (b"model:\n\tpath: x\n", "is not a plan's YAML"),
    "an alias": (b"a: &x [1]\nb: *x\n", "aliases are not allowed"),
    "a billion laughs": (b"a: &a [x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\n", "aliases are not allowed"),
    "an alias to itself": (b"a: &x\n  b: *x\n", "aliases are not allowed"),
    "a merge": (b"<<: {schema: 1}\n", "keys must be plain names"),
    "a list for a key": (b"? [1, 2]\n: 3\n", "keys must be plain names"),
    "a duplicate key": (b"schema: 1\nschema: 1\n", "duplicate key 'schema'"),
    "a duplicate key inside": (b"model:\n  path: a\n  path: b\n", "duplicate key 'path'"),
    "two documents": (b"schema: 1\n---\nschema: 1\n", "is not a plan's YAML"),
    "a Python object": (b"a: !!python/object/apply:os.system ['true']\n", "is not a plan's YAML"),
    "a Python name": (b"a: !!python/name:os.system\n", "is not a plan's YAML"),
    "a tag of its own": (b"!plan\nschema: 1\n", "is not a plan's YAML"),
    "a set": (b"a: !!set {b, c}\n", "plan"),
    "binary": (b"a: !!binary 'not base64!'\n", "plan"),
    "a date that isn't one": (b"a: 2026-13-45\n", "is not a plan's YAML"),
    "a number of 5000 digits": (b"schema: " + b"9" * 5000, "is not a plan's YAML"),
    "a key of a thousand letters": (b"k" * 1000 + b": 1\n", "plan"),
    "nested lists": (b"[" * 100_000, "nests too deeply"),
    "nested mappings": (b"{a: " * 5_000, "nests too deeply"),
    "indented without end": (b"".join(b"%s- a:\n" % (b" " * n) for n in range(0, 1000)), "plan"),
    "UTF-16": ("schema: 1\n".encode("utf-16"), "is not UTF-8"),
    "Latin-1": (b"model: {path: /mod\xe8les}\n", "is not UTF-8"),
    "a NUL": (b"schema: 1\0\n", "is not a plan's YAML"),
    "a terminal code": (b"schema: \x1b[31m1\n", "is not a plan's YAML"),
    "JSON cut off": (b'{"schema": 1, "model": {', "is not a plan's YAML"),
    "over 4 MiB": (b"schema: 1 #" + b"x" * (4 * 1024 * 1024), "is larger than 4 MiB"),
    "a web page": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "is not a mapping"),
    "a safetensors file": (b"\x40\0\0\0\0\0\0\0{}", "is not a plan's YAML"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)), "is not UTF-8"),
    "only a schema": (b"schema: 1\n", "model: Field required"),
    "a newer schema": (b"schema: 2\n", "schema: 2 is of a newer Roost, this one reads 1; plan again"),
    "a model index": (b'{"_class_name": "WanPipeline", "vae": ["diffusers", "AutoencoderKLWan"]}', "plan"),
}


def put(value: object, *path: str | int) -> Edit:
    """Replaces what is at ``path``."""

    def change(plan: dict[str, Any]) -> None:
        target: Any = plan
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


def drop(*path: str) -> Edit:
    def change(plan: dict[str, Any]) -> None:
        target: Any = plan
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return change


_DIT = ("components", "transformer")
_VAE = ("components", "vae")

EDITS: dict[str, tuple[Edit, str]] = {
    "schema is a word": (put("1", "schema"), "schema"),
    "schema is true": (put(True, "schema"), "schema"),
    "schema is 1.0": (put(1.0, "schema"), "schema"),
    "schema is 0": (put(0, "schema"), "schema"),
    "no schema": (drop("schema"), "schema"),
    "a key too many": (put(1, "surprise"), "surprise"),
    "a key too many inside": (put(1, "model", "trust_remote_code"), "model.trust_remote_code"),
    "a key with a terminal code": (put(1, "\x1b[2J"), "\\x1b[2J"),
    "versions is a list": (put([], "versions"), "versions"),
    "a version is a number": (put(2.13, "versions", "torch"), "versions.torch"),
    "model is null": (put(None, "model"), "model"),
    "path is a number": (put(5, "model", "path"), "model.path"),
    "fingerprint is short": (put("abc", "model", "fingerprint"), "model.fingerprint"),
    "fingerprint isn't hexadecimal": (put("g" * 64, "model", "fingerprint"), "model.fingerprint"),
    "pipeline is empty": (put("", "model", "pipeline"), "model.pipeline"),
    "pipeline is 300 letters": (put("P" * 300, "model", "pipeline"), "model.pipeline"),
    "task is a poem": (put("poem", "model", "task"), "model.task"),
    "files is a list": (put([], "model", "files"), "model.files"),
    "an absolute file": (put({"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}, "model", "files"), "model.files"),
    "a file of Windows": (put({"a\\b": {"bytes": 1, "sha256": "0" * 64}}, "model", "files"), "model.files"),
    "a file without hash": (put({"a": {"bytes": 1}}, "model", "files"), "model.files.a.sha256"),
    "a file of -1 bytes": (put({"a": {"bytes": -1, "sha256": "0" * 64}}, "model", "files"), "model.files.a.bytes"),
    "width is 0": (put(0, "workload", "width"), "workload.width"),
    "height is negative": (put(-480, "workload", "height"), "workload.height"),
    "steps is half": (put(0.5, "workload", "steps"), "workload.steps"),
    "frames is a word": (put("81", "workload", "frames"), "workload.frames"),
    "batch is true": (put(True, "workload", "batch"), "workload.batch"),
    "guidance is NaN": (put(float("nan"), "workload", "guidance"), "workload.guidance"),
    "guidance is infinite": (put(float("inf"), "workload", "guidance"), "workload.guidance"),
    "guidance is a word": (put("high", "workload", "guidance"), "workload.guidance"),
    "width of 10**400": (put(10**400, "workload", "width"), "workload.width"),
    "host memory of 10**30": (put(10**30, "machine", "host", "available_bytes"), "machine.host.available_bytes"),
    "machine is a list": (put([], "machine"), "machine"),
    "device kind is a TPU": (put("tpu", "machine", "gpu", "device_kind"), "machine.gpu.device_kind"),
    "platform is metal": (put("metal", "machine", "gpu", "platform"), "machine.gpu.platform"),
    "free bytes are negative": (put(-1, "machine", "gpu", "free_bytes"), "machine.gpu.free_bytes"),
    "total bytes are a fraction": (put(1.5, "machine", "gpu", "total_bytes"), "machine.gpu.total_bytes"),
    "total bytes are NaN": (put(float("nan"), "machine", "gpu", "total_bytes"), "machine.gpu.total_bytes"),
    "host bytes are words": (put("64GiB", "machine", "host", "available_bytes"), "machine.host.available_bytes"),
    "PCIe generation 0": (put(0, "machine", "gpu", "pcie_generation"), "machine.gpu.pcie_generation"),
    "compute capability is a number": (put(9.0, "machine", "gpu", "compute_capability"), "compute_capability"),
    "budget without bytes": (drop("budget", "budget_bytes"), "budget.budget_bytes"),
    "budget is negative": (put(-1, "budget", "budget_bytes"), "budget.budget_bytes"),
    "stages are a mapping": (put({}, "budget", "stages"), "budget.stages"),
    "a stage is a word": (put(["denoise"], "budget", "stages"), "budget.stages.0"),
    "a stage's weights are negative": (put(-1, "budget", "stages", 0, "weights_bytes"), "budget.stages.0"),
    "verdict is a number": (put(5, "budget", "verdict"), "budget.verdict"),
    "fits is a word": (put("yes", "fits"), "fits"),
    "fits is 1": (put(1, "fits"), "fits"),
    "fits is null": (put(None, "fits"), "fits"),
    "load order is a word": (put("vae", "load_order"), "load_order"),
    "load order is short": (put(["vae"], "load_order"), "load_order"),
    "load order has a stranger": (put(["transformer", "vae", "text_encoder", "x"], "load_order"), "load_order"),
    "load order names one twice": (put(["transformer", "vae", "vae", "text_encoder"], "load_order"), "load_order"),
    "policy is oracle": (put("oracle", "policy", "name"), "policy.name"),
    "mode is turbo": (put("turbo", "policy", "mode"), "policy.mode"),
    "no GPUs": (put(0, "policy", "num_gpus"), "policy.num_gpus"),
    "a rule without why": (put([{"id": "A"}], "policy", "fired"), "policy.fired.0.why"),
    "role is cook": (put("cook", "role", "name"), "role.name"),
    "what a role loads is a word": (put("vae", "role", "loads"), "role.loads"),
    "what a role loads is a number": (put([7], "role", "loads"), "role.loads.0"),
    "components is a list": (put([], "components"), "components"),
    "a component is null": (put(None, *_VAE), "components.vae"),
    "a component too few": (drop("components", "vae"), "load_order"),
    "fits against its budget": (put(False, "fits"), "fits is False"),
    "a deficit that fits": (put(5, "budget", "deficit_bytes"), "fits is True"),
    "kind is engine": (put("engine", *_DIT, "kind"), "components.transformer.kind"),
    "strategy is teleport": (put("teleport", *_DIT, "strategy"), "components.transformer.strategy"),
    "strategy is null": (put(None, *_DIT, "strategy"), "components.transformer.strategy"),
    "resident with prefetch": (put(1, *_DIT, "prefetch"), "components.transformer"),
    "layerwise without parameters": (put("layerwise-offload", *_DIT, "strategy"), "components.transformer"),
    "resident with residents": (put(2, *_DIT, "resident_blocks"), "components.transformer"),
    "linger is a word": (put("no", *_DIT, "linger"), "components.transformer.linger"),
    "load bytes are negative": (put(-5, *_DIT, "load_bytes"), "components.transformer.load_bytes"),
    "stacks is a mapping": (put({}, *_DIT, "stacks"), "components.transformer.stacks"),
    "a stack of no blocks": (put(0, *_DIT, "stacks", 0, "count"), "components.transformer.stacks.0.count"),
    "library is a number": (put(5, *_DIT, "library"), "components.transformer.library"),
    "class is empty": (put("", *_DIT, "class_name"), "components.transformer.class_name"),
    "dtype isn't one": (put("system", *_VAE, "load_dtype"), "components.vae.load_dtype"),
    "why is missing": (drop(*_VAE, "why"), "components.vae.why"),
    "a prediction": (put({"seconds": 1.0}, "predicted"), "predicted"),
    "warnings is a word": (put("none", "warnings"), "warnings"),
}


def _layerwise(**changes: object) -> Edit:
    """The DiT streamed with two of its four blocks resident, and one thing wrong."""
    right: dict[str, object] = {
        "strategy": "layerwise-offload",
        "resident_blocks": 2,
        "resident_policy": "strided",
        "prefetch": 1,
        "slots": 2,
        "hold": False,
        "master": {"pinned": 2, "pageable": 0, "mapped": 0},
    }
    return lambda plan: plan["components"]["transformer"].update({**right, **changes})


LAYERWISE_EDITS: dict[str, tuple[Edit, str]] = {
    "more residents than blocks": (_layerwise(resident_blocks=5), "resident_blocks 5"),
    "residents are negative": (_layerwise(resident_blocks=-1), "resident_blocks"),
    "residents are a share": (_layerwise(resident_blocks=0.5), "resident_blocks"),
    "residents are 10**30": (_layerwise(resident_blocks=10**30), "resident_blocks"),
    "policy for stacks that are not there": (_layerwise(resident_policy="0+0+0"), "resident_policy 0+0+0"),
    "a block runs twice": (_layerwise(use_order=[0, 1, 1]), "use_order"),
    "a block that is not there runs": (_layerwise(use_order=[9_999]), "use_order"),
    "policy is random": (_layerwise(resident_policy="random"), "resident_policy"),
    "prefetch is 0": (_layerwise(prefetch=0), "prefetch"),
    "prefetch is null": (_layerwise(prefetch=None), "components.transformer"),
    "slots are negative": (_layerwise(slots=-2), "slots"),
    "hold is 0": (_layerwise(hold=0), "hold"),
    "masters are a number": (_layerwise(master=2), "master"),
    "masters are missing": (_layerwise(master=None), "components.transformer"),
    "masters lack a tier": (_layerwise(master={"pinned": 2, "pageable": 0}), "master.mapped"),
    "masters are negative": (_layerwise(master={"pinned": -1, "pageable": 0, "mapped": 0}), "master.pinned"),
}


def _short(plan: dict[str, Any]) -> None:
    plan["fits"] = False
    plan["budget"]["deficit_bytes"] = 5


# Plans that are whole, for a model or machine that isn't here: exit 4, or 2 where the model can't be found at all.
STALE: dict[str, tuple[Edit, int, str]] = {
    "another fingerprint": (put("0" * 64, "model", "fingerprint"), 4, "fingerprint"),
    "no files": (put({}, "model", "files"), 4, "is new"),
    "a file more": (
        lambda plan: plan["model"]["files"].update({"../../x": {"bytes": 1, "sha256": "0" * 64}}), 4, "is gone",
    ),
    "a file of another size": (put(1, "model", "files", "model_index.json", "bytes"), 4, "changed size"),
    "no model": (lambda plan: plan["model"].update(path=None, source="name"), 2, "--model DIR"),
    "a pipeline in memory": (lambda plan: plan["model"].update(path=None, source="memory"), 2, "--model DIR"),
    "no path of a directory": (put(None, "model", "path"), 2, "path must be set for a directory"),
    "a model that is gone": (put("/nowhere/wan", "model", "path"), 2, "/nowhere/wan"),
    "a model with a NUL": (put("/nowhere\0wan", "model", "path"), 2, "\\x00"),
    "an empty model": (put("", "model", "path"), 2, "directory"),
    "a model that is a file": (put("/etc/passwd", "model", "path"), 2, "is a file"),
    "a variant that isn't there": (put("fp16", "model", "variant"), 2, "--variant 'fp16'"),
    "an fsdp component": (put("fsdp", *_DIT, "strategy"), 2, "torchrun"),
    "a plan that doesn't fit": (_short, 3, "--vram"),
}  # fmt: skip
