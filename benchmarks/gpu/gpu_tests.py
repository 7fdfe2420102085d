"""Runs the tests marked gpu and writes how many passed, and which failed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]


def files_with_gpu_tests() -> list[Path]:
    """By name, so that what other test files import need not be there: pytest ends where a file can't be imported."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    return [each for each in files if "pytest.mark.gpu" in each.read_text(encoding="utf-8")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options_of_pytest = ["-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
        options_of_pytest += [f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options_of_pytest, *map(str, files_with_gpu_tests())]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not report.exists():  # pytest did not get as far as running tests
            return code
        suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    counts = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    bad = [
        case for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None
    ]
    record = {
        **counts,
        "passed": counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"],
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in bad],
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
