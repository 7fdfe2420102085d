"""The world every test runs in: offline, away from the user's files, few threads; which tests run, by choice."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

import pytest

pytest_plugins = ["real_models", "given_folders"]

# All of this is set while pytest starts, before a test module imports a library that reads it once; child processes
# and xdist's workers inherit it, and each worker then takes a home of its own, but for the cache: what one worker
# has dry-run the other needs as well.
_HOME = Path(tempfile.mkdtemp(prefix="roost-tests-"))
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = str(_HOME / "xdg_cache_home")
for _variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "HF_HOME"):
    os.environ[_variable] = str(_HOME / _variable.lower())
for _variable in ("HF_HUB_CACHE", "HF_TOKEN"):
    os.environ.pop(_variable, None)
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "2")  # torch takes its number of threads from here
# Ray's clusters here ask for a token, as those do that people share; without a path it is in the user's home.
(_HOME / "ray-token").write_text(secrets.token_hex(32))
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(_HOME / "ray-token")}
_DATA_HOMES = (str(_HOME / f"data-{number}") for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test's runs measured must not change another's plans."""
    monkeypatch.setenv("XDG_DATA_HOME", next(_DATA_HOMES))


@pytest.fixture(autouse=True)
def _own_default_dtype() -> Iterator[None]:
    """Names the test that leaves another default dtype behind: what fails is a test much later."""
    yield
    if "torch" in sys.modules:
        left = sys.modules["torch"].get_default_dtype()
        sys.modules["torch"].set_default_dtype(sys.modules["torch"].float32)
        assert str(left) == "torch.float32"


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--fast", action="store_true", help="skip what needs torch or takes long without it")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fast"):
        sys.meta_path.insert(0, _NoTorch())
        from hypothesis import settings  # imported here: the tests on a GPU run without it

        settings.register_profile("fast", max_examples=20)
        settings.load_profile("fast")


class _NoTorch(MetaPathFinder):
    """Whoever imports torch, or what loads it, is skipped: a module as it is collected, a test in the middle."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname in ("torch", "diffusers", "transformers", "accelerate"):
            raise pytest.skip.Exception(f"fast: needs {fullname}", allow_module_level=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--runslow"):
        _deal(items)
        _skip(items, "slow", "slow: runs with --runslow")
    if config.getoption("--fast"):
        _skip(items, "long", "long: runs without --fast")
    elif any(item.get_closest_marker("gpu") for item in items) and not _has_cuda():
        _skip(items, "gpu", "gpu: torch finds no CUDA device")


def _deal(items: list[pytest.Item]) -> None:
    """Of the cases of a test that is marked ``dealt(every)`` one in so many runs; those that are slow don't count."""
    cases: Counter[str] = Counter()
    for item in items:
        dealt = item.get_closest_marker("dealt")
        if dealt and not item.get_closest_marker("slow"):
            test = item.nodeid.partition("[")[0]
            if cases[test] % dealt.args[0]:
                item.add_marker("slow")
            cases[test] += 1


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


def _has_cuda() -> bool:
    import torch  # only when a gpu test was collected: most runs of single files need no torch

    return torch.cuda.is_available()
