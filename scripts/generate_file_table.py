"""Write docs/files.md's table of formats and families: each cell inspected, planned and run, with a LoRA too."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from given_files_matrix import FAMILIES, FORMATS, is_wide, made_world  # noqa: E402 - the tests' folder is no package
from given_files_runs import Tried, tried  # noqa: E402
from roost.errors import RoostError  # noqa: E402
from roost.pipelines.quiet import quiet_libraries, quiet_torch  # noqa: E402
from single_file_worlds import World  # noqa: E402

DOCUMENT = ROOT / "docs" / "files.md"
BEGIN, END = "<!-- formats and families: begin -->", "<!-- formats and families: end -->"
_TRIED = ("inspect", "plan", "run", "lora")


def main() -> int:
    """Writes the table; 1 where a cell failed."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder, quiet_libraries(), quiet_torch():
        rows = _rows(Path(folder))
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    lines = [_line(["format", *FAMILIES]), _line(["---"] * (1 + len(FAMILIES))), *map(_line, rows)]
    DOCUMENT.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]), encoding="utf-8")
    return 0 if all("no" not in cell for row in rows for cell in row[1:]) else 1


def _rows(folder: Path) -> list[list[str]]:
    columns = [_column(family, folder / family) for family in FAMILIES]
    return [[form, *(column[form] for column in columns)] for form in FORMATS]


def _column(family: str, folder: Path) -> dict[str, str]:
    made = {wide: made_world(family, folder / ("wide" if wide else "model"), wide=wide) for wide in (False, True)}
    return {form: _cell(family, form, made[is_wide(form)], folder) for form in FORMATS}


def _cell(family: str, form: str, made: World, folder: Path) -> str:
    try:
        found = tried(family, made, FORMATS[form](made, family, folder))
    except RoostError as error:
        print(f"{family}, {form}: {error}", file=sys.stderr)
        return "no"
    print(f"{family}, {form}: {_words(found)}", file=sys.stderr, flush=True)
    return _words(found)


def _words(found: Tried) -> str:
    return " / ".join("yes" if getattr(found, name) else "no" for name in _TRIED)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
