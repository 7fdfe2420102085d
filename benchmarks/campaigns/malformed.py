"""Damaged inputs of every kind that a command reads: the documented exit code, one line, no traceback.

python benchmarks/campaigns/malformed.py --count 1000
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from sandbox import MACHINE, WORKLOAD, Sandbox, Summary, arguments, check_ended

RUN = ("run", "../plan.yaml", "--prompt", "a fox")
PLAYLIST = "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n"


class Inputs:
    """The kinds of input: a good file for each, and the command that reads it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.model = sandbox.work / "model"
        shutil.copytree(sandbox.root / "model", self.model)
        self.commands: dict[Path, tuple[str, ...]] = {}
        self._of_models()
        self._of_runs()
        self._of_documents()

    def _of_models(self) -> None:
        described = (
            ("inspect", "model"),
            ("plan", "model", *MACHINE, *WORKLOAD, "--policy", "rules"),
            (*("run", "model", *MACHINE, *WORKLOAD, "--prompt", "x"),),
        )
        for name in (
            "model_index.json",
            "transformer/config.json",
            "vae/config.json",
            "scheduler/scheduler_config.json",
        ):
            self._all(self.model / name, *described)
        for name in ("tokenizer/tokenizer_config.json", "text_encoder/config.json", "tokenizer/tokenizer.json"):
            if (self.model / name).exists():
                self._all(self.model / name, *described)
        for path in sorted(self.model.glob("*/*.safetensors"))[:2]:
            self._all(path, *described)
        index = self.model / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
        weights = self.model / "transformer" / "diffusion_pytorch_model.safetensors"
        if weights.exists():
            header = weights.read_bytes()
            names = [
                name for name in json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")]) if name[0] != "_"
            ]
            shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
            weights.rename(weights.with_name(shard))
            index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)}))
            self._all(index, *described[:2])

    def _of_runs(self) -> None:
        from PIL import Image

        Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 20).save("fox.png")
        Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 20).save("fox.jpg")
        Path("prompts.txt").write_text("a fox\n# no fox\na crow\n")
        Path("lora.safetensors").write_bytes(_lora())
        Path("list.mp4").write_text(PLAYLIST)
        Path("plan.yaml").write_bytes(Path("../plan.yaml").read_bytes())
        for name in ("fox.png", "fox.jpg", "list.mp4"):
            self._all(Path(name), (*RUN, "--image", name))
        self._all(Path("prompts.txt"), ("run", "../plan.yaml", "--prompts", "prompts.txt", "--dry-run"))
        self._all(Path("lora.safetensors"), (*RUN, "--lora", "lora.safetensors"))
        self._all(
            Path("plan.yaml"),
            ("run", "plan.yaml", "--prompt", "x"),
            ("explain", "plan.yaml"),
            ("timeline", "plan.yaml", "-o", "t.html"),
        )
        twice = ("run", "../plan.yaml", "--prompt", "a fox", "--seed", "1", "--seed", "2", "-o", "two.png")
        assert self.sandbox.run(twice).code == 0
        self._all(Path("two.journal.jsonl"), twice)

    def _of_documents(self) -> None:
        bench = (
            "bench",
            "../plan.yaml",
            "--strategies",
            "search",
            "--rounds",
            "1",
            "--trial-steps",
            "1",
            "-o",
            "results.json",
        )
        assert self.sandbox.run(bench).code == 0
        assert self.sandbox.run(["profiles", "export", "-o", "profiles.json"]).code == 0
        self._all(Path("results.json"), ("report", "results.json", "-o", "report.html"))
        self._all(Path("profiles.json"), ("profiles", "import", "profiles.json"))
        state, cache, data = (self.sandbox.root / f"xdg_{name}_home" / "roost" for name in ("state", "cache", "data"))
        for path in sorted((state / "bench").glob("*.jsonl"))[:1]:
            self._all(path, (*bench, "--fresh"))
        for path in sorted((cache / "traces").glob("*.json"))[:1]:
            self._all(path, ("plan", "../model", *MACHINE, *WORKLOAD), ("timeline", "../plan.yaml", "-o", "t.html"))
        for path in sorted((data / "measured").glob("*/*.yaml"))[:2]:
            self._all(path, ("profiles",), ("plan", "../model", *MACHINE, *WORKLOAD))

    def _all(self, path: Path, *commands: tuple[str, ...]) -> None:
        for number, words in enumerate(commands):
            self.commands[path.resolve().with_name(f"{path.name}#{number}")] = words


def _lora() -> bytes:
    from directories import safetensors

    return safetensors(
        {
            "transformer.transformer_blocks.0.attn.to_q.lora_A.weight": ("F32", (4, 32)),
            "transformer.transformer_blocks.0.attn.to_q.lora_B.weight": ("F32", (32, 4)),
        }
    )


def damages(raw: bytes) -> dict[str, Callable[[Path, Random], None]]:
    """Ways to make a file another one, by name."""
    from mutations import mutate_bytes, mutate_document

    def edited(path: Path, chance: Random) -> None:
        try:
            path.write_bytes(json.dumps(mutate_document(json.loads(raw), chance)).encode("utf-8", "surrogatepass"))
        except ValueError:
            path.write_bytes(mutate_bytes(raw, chance))

    def replaced(make: Callable[[Path], None]) -> Callable[[Path, Random], None]:
        def damage(path: Path, _: Random) -> None:
            path.unlink()
            make(path)

        return damage

    return {
        "mutated": lambda path, chance: path.write_bytes(mutate_bytes(raw, chance)),
        "mutated again": lambda path, chance: path.write_bytes(mutate_bytes(raw, chance)),
        "edited": edited,
        "edited again": edited,
        "empty": lambda path, _: path.write_bytes(b""),
        "cut": lambda path, chance: path.write_bytes(raw[: chance.randrange(len(raw) + 1)]),
        "noise": lambda path, chance: path.write_bytes(chance.randbytes(300)),
        "deep": lambda path, _: path.write_bytes(b"[" * 200_000),
        "zeros": lambda path, _: path.write_bytes(bytes(1000)),
        "playlist": lambda path, _: path.write_text(PLAYLIST),
        "fifo": replaced(os.mkfifo),
        "folder": replaced(Path.mkdir),
        "gone": replaced(lambda _: None),
        "device": replaced(lambda path: path.symlink_to("/dev/zero")),
        "loop": replaced(lambda path: path.symlink_to(path)),
    }


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def main() -> int:
    given = arguments(__doc__, 1000)
    summary, chance = Summary(campaign="malformed", count=given.count, seed=given.seed), Random(given.seed)
    with Sandbox() as sandbox:
        inputs = Inputs(sandbox)
        for number in range(given.count):
            key, words = list(inputs.commands.items())[number % len(inputs.commands)]
            path = key.with_name(key.name.rpartition("#")[0])
            raw = path.read_bytes()
            damage, make = chance.choice(list(damages(raw).items()))
            make(path, chance)
            damaged = path.read_bytes()[:4000] if path.is_file() and not path.is_symlink() else b""
            ended = sandbox.run(words)
            summary.tally[f"{words[0]}: {ended.code}"] += 1
            problem = check_ended(ended)
            if problem or sandbox.temporary():
                summary.fail(f"{number} {path.name} {damage}, {' '.join(words)}: {problem or sandbox.temporary()}")
                (Path(os.environ.get("KEEP_DAMAGED", sandbox.root)) / f"{number}-{path.name}").write_bytes(damaged)
            _remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        summary.figures["kinds"] = len(inputs.commands)
    return summary.write()


if __name__ == "__main__":
    sys.exit(main())
