"""``roost plan --fleet``: what it prints and writes, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import roost
from dry_runs import tiny_directory
from roost.api.plans.fleet.spec import parse_fleet
from roost.cli.app import run
from roost.errors import InvalidFile, UsageError
from roost.facts.machine import FailureRate, FleetHost, HostBandwidth, HostLink
from roost.facts.request import LAYOUTS
from roost.plan import plan_to_yaml, read_plan
from roost.units import GiB

TINY = ("--vram", "64MiB", "--ram", "16GiB", "--headroom", "0", "--size", "64x64", "--steps", "2")
HOSTS = """
hosts:
  - {name: big, gpus: 2 x l40s, ram: 512GiB, memory_bandwidth: 200GB/s, numa_nodes: 2, numa_bandwidth: 60GB/s}
  - {name: small, gpus: emulated, vram: 8GiB, count: 2}
links:
  - {between: [big, small-2], bandwidth: 1GB/s}
failures: {hours_between: 500, restart_s: 120}
"""


@pytest.mark.parametrize(
    ("text", "cards"),
    [
        ("4 x l40s", ("l40s",) * 4),
        ("rtx-4090 + rtx-3060", ("rtx-4090", "rtx-3060")),
        ("RTX 4090+2X 3060", ("rtx-4090", "rtx-3060", "rtx-3060")),
        ("3 × emulated", ("emulated",) * 3),
    ],
)
def test_terms_of_cards_are_one_host(text: str, cards: tuple[str, ...]) -> None:
    assert parse_fleet(text).hosts == (FleetHost(name="host", cards=cards),)


def test_more_than_eight_cards_are_on_several_hosts() -> None:
    assert [len(each.cards) for each in parse_fleet("20 x l4").hosts] == [8, 8, 4]


def test_a_file_says_hosts_links_and_failures(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(HOSTS)
    fleet = parse_fleet(str(path))
    assert fleet.hosts == (
        FleetHost(
            name="big",
            cards=("l40s", "l40s"),
            ram_bytes=512 * GiB,
            bandwidth=HostBandwidth(memory_bytes_per_s=200e9, numa_nodes=2, numa_bytes_per_s=60e9),
        ),
        FleetHost(name="small-1", cards=("emulated",), vram_bytes=8 * GiB),
        FleetHost(name="small-2", cards=("emulated",), vram_bytes=8 * GiB),
    )
    assert fleet.links == (HostLink(between=("big", "small-2"), bytes_per_s=1e9),)
    assert fleet.failures == FailureRate(mean_s=1_800_000, restart_s=120)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no fleet"),
        ("4 x", "not a known card"),
        ("+", "no fleet"),
        ("0 x l40s", "1 to 1000"),
        ("99999 x l40s", "1 to 1000"),
        ("600 x l4 + 600 x l40s", "1200 cards"),
        ("2 x voodoo-2", "'voodoo-2' is not a known card"),
        ("l40s + ", "no fleet"),
        ("2 x gb10", "its host's memory"),
        ("4 x l40s\nerror: x", "no fleet"),
    ],
)
def test_what_is_no_fleet_is_refused(text: str, named: str, capsys) -> None:
    with pytest.raises(UsageError, match=named):
        parse_fleet(text)
    assert run(["plan", "flux.1-dev", "--fleet", text]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "No such file"),
        ("", "not a mapping"),
        ("hosts: [", "YAML"),
        ("hosts: []", "hosts: List should have at least 1 item"),
        ("hosts: [{name: a}]", "hosts.0.gpus"),
        ("hosts: [{name: a, gpus: l40s, cpu: 4}]", "hosts.0.cpu"),
        ("hosts: [{name: a, gpus: l40s, ram: lots}]", "hosts.0.ram: Value error, not a size"),
        ("hosts: [{name: a, gpus: l40s, ram: 0}]", "hosts.0.ram"),
        ("hosts: [{name: a, gpus: l40s, ram: '64'}]", "hosts.0.ram: Value error, 64 would be 64 bytes"),
        ("hosts: [{name: a, gpus: l40s, count: 0}]", "hosts.0.count"),
        ("hosts: [{name: a, gpus: l40s, numa_nodes: 0}]", "hosts.0.numa_nodes"),
        ("hosts: [{name: a, gpus: l40s, numa_nodes: 2, numa_bandwidth: 60}]", "60 would be 60 bytes"),
        ("hosts: [{name: a, gpus: l40s, numa_bandwidth: 60GB/s}]", "say how many there are as numa_nodes"),
        ("hosts: [{name: a, gpus: l40s}, {name: a, gpus: l4}]", "two hosts have one name"),
        ("hosts: [{name: a, gpus: l40s}]\nlinks: [{between: [a, b], bandwidth: 1GB/s}]", "between a and b"),
        (
            "hosts: [{name: a, gpus: l40s, count: 2}]\n"
            "links: [{between: [a-1, a-2], bandwidth: 1GB/s}, {between: [a-2, a-1], bandwidth: 2GB/s}]",
            "two links are between the same hosts",
        ),
        ("hosts: [{name: a, gpus: l40s}]\nfailures: {hours_between: 0}", "failures.hours_between"),
    ],
)
def test_a_file_that_is_no_fleet_is_refused(text: str | None, named: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "fleet.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidFile, match=named):
        parse_fleet(str(path))
    assert run(["plan", "flux.1-dev", "--fleet", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--gpu", "l40s"), "--gpu"),
        (("--role", "encoder"), "--role"),
        (("--num-gpus", "1"), "--num-gpus"),
        (("--fsdp",), "--fsdp"),
        (("--generations", "2"), "--generations"),
        (("--tune",), "--tune"),
        (("--sweep", "vram=8GiB"), "--sweep"),
        (("--policy", "rules"), "--policy"),
        (("--layout", "ring"), "--layout 'ring'"),
        (("--layout", "single"), "--layout 'single'"),
        (("--rate", "0"), "--rate 0"),
        (("--rate", "nan"), "--rate nan"),
        (("--rate", "1e-300"), "--rate 1e-300"),
        (("--requests", "0"), "--requests 0"),
        (("--requests", "99999999"), "--requests 99999999"),
    ],
)
def test_options_that_a_fleet_does_not_take_are_refused(words: tuple[str, ...], named: str, capsys) -> None:
    assert run(["plan", "flux.1-dev", "--fleet", "2 x l40s", *words]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [("--layout", "roles"), ("--rate", "1"), ("--requests", "5")])
def test_options_of_fleets_need_one(words: tuple[str, ...], capsys) -> None:
    assert run(["plan", "flux.1-dev", "--gpu", "l40s", *words]) == 2
    assert "--fleet SPEC" in capsys.readouterr().err


def test_emulated_cards_need_their_memory(capsys) -> None:
    assert run(["plan", "flux.1-dev", "--fleet", "3 x emulated"]) == 2
    assert "--vram 12GiB" in capsys.readouterr().err


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "fleet.yaml"
    words = ["--fleet", "3 x emulated", *TINY, "--layout", "shared", "--rate", "2", "--requests", "40"]
    assert run(["plan", str(tiny_directory("flux")), *words, "-o", str(path)]) == 0
    return path


def test_json_is_the_written_plan_with_its_workers(planned: Path, capsys) -> None:
    words = ["--fleet", "3 x emulated", *TINY, "--layout", "shared", "--rate", "2", "--requests", "40", "--json"]
    assert run(["plan", str(tiny_directory("flux")), *words]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == read_plan(planned).model_dump(mode="json", by_alias=True)
    assert document["schema"] == 1
    assert document["layout"] == "shared"
    assert [(each["name"], each["device"], each["role"]) for each in document["workers"]] == [
        ("encoder-decoder-1", 0, "encoder-decoder"),
        ("denoiser-1", 1, "denoiser"),
        ("denoiser-2", 2, "denoiser"),
    ]
    assert {each["host"] for each in document["workers"]} == {"host"}
    assert {each["gpu"] for each in document["workers"]} == {"emulated"}
    assert set(document["workers"][0]["components"]) == {"text_encoder", "text_encoder_2", "vae"}
    for figure in ("requests_per_s", "request_s", "host_bytes"):
        interval = document["fleet"][figure]
        assert 0 < interval["low"] <= interval["mid"] <= interval["high"]
    assert set(document["fleet"]["utilisation"]) == {"encoder-decoder", "denoiser"}
    assert [each["name"] for each in document["layouts"]] == list(LAYOUTS)
    assert [each["name"] for each in document["layouts"] if each["why_not"] is None] == ["shared"]


def test_a_fleet_s_plan_is_not_run_by_one_process_and_the_refusal_says_how_it_is(planned: Path, capsys) -> None:
    assert run(["run", str(planned), "--prompt", "a fox", "-o", "fox.png"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "run it with roost run --on ray" in error
    assert "roost plan" in error
    assert "--gpu CARD" in error
    assert run(["export", str(planned), "--to", "sglang"]) == 2
    assert "fleet of 3 workers" in capsys.readouterr().err
    assert run(["explain", str(planned)]) == 0
    assert "the first that denoises of a fleet's 3 workers, layout shared\n" in capsys.readouterr().out


@pytest.mark.parametrize(("cards", "requests"), [("2 x rtx-4090", 100), ("rtx-4090 + rtx-3060", 500)])
def test_unequal_cards_get_more_requests_so_that_slow_ones_ending_last_hardly_count(
    cards: str, requests: int, capsys
) -> None:
    words = ["--fleet", cards, *TINY, "--vram", "1GiB", "--json"]
    assert run(["plan", str(tiny_directory("flux")), *words]) == 0
    assert json.loads(capsys.readouterr().out)["fleet"]["requests"] == requests


def test_one_card_that_is_enough_is_a_plan_that_runs(tmp_path: Path, capsys) -> None:
    words = ["--fleet", "1 x emulated", *TINY, "-o", str(tmp_path / "one.yaml")]
    assert run(["plan", str(tiny_directory("flux")), *words]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("single: no other layout can be.")
    assert "Next: roost run" in shown.err
    document = read_plan(tmp_path / "one.yaml")
    assert (document.layout, len(document.workers)) == ("single", 1)


def test_a_fleet_that_holds_no_layout_says_why_of_each(capsys) -> None:
    small = [word if word != "64MiB" else "1KiB" for word in TINY]
    assert run(["plan", str(tiny_directory("flux")), "--fleet", "2 x emulated", *small]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: this fleet has no layout that fits. single: the whole pipeline does not fit")
    assert "roles: " in error


def test_a_layout_that_can_t_be_is_refused_with_the_reason(capsys) -> None:
    words = ["--fleet", "2 x emulated", *TINY, "--layout", "shared"]
    assert run(["plan", str(tiny_directory("flux")), *words]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "error: --layout shared can't be: with two cards that is the layout roles."


def test_a_plan_with_half_a_fleet_is_not_read(planned: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.yaml"
    half.write_text(planned.read_text().replace("layout: shared\n", "layout: null\n"))
    with pytest.raises(InvalidFile, match="layout, workers and fleet must be set together"):
        read_plan(half)


def test_a_diff_says_how_fleets_differ(planned: Path, tmp_path: Path, capsys) -> None:
    other = yaml.safe_load(planned.read_text())
    other["workers"] = other["workers"][:2]
    other["fleet"]["requests_per_s"]["mid"] = other["fleet"]["requests_per_s"]["low"]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other, sort_keys=False))
    capsys.readouterr()
    assert run(["diff", str(planned), str(tmp_path / "other.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    changed = {each["what"] for each in (*found["decisions"], *found["figures"]) if each["about"] == "fleet"}
    assert changed == {"workers as denoiser", "requests_per_s"}


def test_python_makes_the_same_plan(planned: Path) -> None:
    document = read_plan(planned)
    made = roost.make_fleet_plan(
        str(document.model.path),
        "3 x emulated",
        layout="shared",
        rate=2.0,
        requests=40,
        vram="64MiB",
        ram="16GiB",
        headroom="0",
        size="64x64",
        steps=2,
    )
    assert plan_to_yaml(made) == planned.read_text()
    with pytest.raises(UsageError, match="make_fleet_plan has no option 'gpu'"):
        roost.make_fleet_plan("flux.1-dev", "2 x l40s", gpu="l40s")
