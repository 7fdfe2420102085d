"""``--fleet``: cards in short (``4 x l40s + rtx-3060``), or a YAML file of hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from roost.errors import InvalidFile, UsageError
from roost.facts.limits import Name, Positive
from roost.facts.machine import FailureRate, Fleet, FleetHost, HostBandwidth, HostLink
from roost.option_spelling import given
from roost.plan.fields import Strict
from roost.plan.strict_yaml import MAX_BYTES, NotValid, validated, yaml_mapping
from roost.profiles.gpus import find_gpu_profile
from roost.shell_quoting import shown_path
from roost.units import parse_bytes

EMULATED = "emulated"
_TERM = re.compile(r"(?:(\d{1,5})\s*[x×]\s*)?(\S.*)", re.IGNORECASE | re.ASCII)
# Cards in short that are more than this are on several hosts.
_CARDS_A_HOST = 8
_MOST_CARDS = 1000
_MOST_NODES = 1024  # NUMA nodes of one host that Linux knows
# A number below this is no count of bytes, but of some unit that was left out.
_LEAST_WITHOUT_UNIT = 2**20
_EXAMPLE = '"4 x l40s", "rtx-4090 + rtx-3060" or a YAML file of hosts'


def _size(text: object) -> object:
    plain = str(text).strip()
    if plain.isdecimal() and int(plain) < _LEAST_WITHOUT_UNIT:
        raise ValueError(f"{plain} would be {plain} bytes; give its unit, like 64GiB, or 200GB/s")
    if not isinstance(text, str):
        return text
    try:
        return parse_bytes(plain.removesuffix("/s"), "fleet")
    except UsageError:
        raise ValueError("not a size; write it like 64GiB, or 200GB/s") from None


_Size = Annotated[int, BeforeValidator(_size), Field(gt=0, lt=2**63)]
_Span = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=False)]


class _HostEntry(Strict):
    """One host, or ``count`` like it."""

    name: Name
    gpus: Name
    count: Annotated[Positive, Field(le=_MOST_CARDS)] = 1
    ram: _Size | None = None
    vram: _Size | None = None
    memory_bandwidth: _Size | None = None
    numa_nodes: Annotated[Positive, Field(le=_MOST_NODES)] = 1
    numa_bandwidth: _Size | None = None

    @model_validator(mode="after")
    def _between_nodes(self) -> _HostEntry:
        if self.numa_bandwidth is not None and self.numa_nodes < 2:
            raise ValueError("numa_bandwidth is that between several nodes; say how many there are as numa_nodes")
        return self


class _LinkEntry(Strict):
    between: Annotated[list[Name], Field(min_length=2, max_length=2)]
    bandwidth: _Size


class _FailuresEntry(Strict):
    """Hours between a worker's deaths on average, and the seconds until it is back."""

    hours_between: Annotated[_Span, Field(ge=1)]
    restart_s: _Span = 60.0


class _FleetFile(Strict):
    hosts: Annotated[list[_HostEntry], Field(min_length=1)]
    links: list[_LinkEntry] = Field(default_factory=list)
    failures: _FailuresEntry | None = None


def parse_fleet(text: str) -> Fleet:
    """The fleet that is meant; raises UsageError for a text that is none, InvalidFile for a file that is none."""
    path = Path(text.strip())
    fleet = _read(path) if path.suffix.lower() in (".yaml", ".yml") else _in_short(text)
    if fleet.card_count > _MOST_CARDS:
        raise UsageError(f"{given('fleet', text)} has {fleet.card_count} cards; plan for at most {_MOST_CARDS}.")
    return fleet


def _in_short(text: str) -> Fleet:
    cards = _cards(text)
    parts = [cards[first : first + _CARDS_A_HOST] for first in range(0, len(cards), _CARDS_A_HOST)]
    names = ["host"] if len(parts) == 1 else [f"host-{number}" for number in range(1, len(parts) + 1)]
    return Fleet(hosts=tuple(FleetHost(name=name, cards=part) for name, part in zip(names, parts, strict=True)))


def _cards(text: str) -> tuple[str, ...]:
    """The cards of ``N x CARD`` terms, by the keys of their profiles."""
    found: list[str] = []
    for term in text.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None or (match[1] is not None and not 1 <= int(match[1]) <= _MOST_CARDS):
            raise UsageError(f"{given('fleet', text)} is no fleet of 1 to {_MOST_CARDS} cards; write {_EXAMPLE}.")
        name = match[2].strip()
        profile = None if name.lower() == EMULATED else find_gpu_profile(name, "fleet")
        found += [profile.key if profile else EMULATED] * int(match[1] or 1)
        if profile is not None and profile.unified and len(found) > 1:
            raise UsageError(
                f"{given('fleet', text)}: {profile.name} has its host's memory; give each a host in a file."
            )
    return tuple(found)


def _read(path: Path) -> Fleet:
    try:
        with path.open("rb") as stream:
            entry = validated(yaml_mapping(stream.read(MAX_BYTES + 1), "fleet"), _FleetFile, "fleet")
        return _checked(entry)
    except NotValid as error:
        raise InvalidFile(f"fleet {shown_path(path)} is not valid: {error}; docs/several-gpus.md has one.") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no path"
        raise InvalidFile(f"fleet {shown_path(path)} can't be read: {why}; write {_EXAMPLE}.") from None


def _checked(entry: _FleetFile) -> Fleet:
    hosts = tuple(host for each in entry.hosts for host in _hosts(each))
    names = {each.name for each in hosts}
    if len(names) < len(hosts):
        raise NotValid("two hosts have one name")
    for link in entry.links:
        unknown = [each for each in link.between if each not in names]
        if unknown or len(set(link.between)) < 2:
            raise NotValid(
                f"a link is between {' and '.join(link.between)}, and the hosts are {', '.join(sorted(names))}"
            )
    pairs = [frozenset(link.between) for link in entry.links]
    if len(set(pairs)) < len(pairs):
        raise NotValid("two links are between the same hosts")
    return Fleet(
        hosts=hosts,
        links=tuple(HostLink(between=(a.between[0], a.between[1]), bytes_per_s=a.bandwidth) for a in entry.links),
        failures=_failure_rate(entry.failures) if entry.failures else None,
    )


def _failure_rate(entry: _FailuresEntry) -> FailureRate:
    return FailureRate(mean_s=3600 * entry.hours_between, restart_s=entry.restart_s)


def _hosts(entry: _HostEntry) -> list[FleetHost]:
    names = [entry.name] if entry.count == 1 else [f"{entry.name}-{number}" for number in range(1, entry.count + 1)]
    cards = _cards(entry.gpus)
    bandwidth = HostBandwidth(
        memory_bytes_per_s=entry.memory_bandwidth,
        numa_nodes=entry.numa_nodes,
        numa_bytes_per_s=entry.numa_bandwidth,
    )
    return [
        FleetHost(
            name=name,
            cards=cards,
            vram_bytes=entry.vram,
            ram_bytes=entry.ram,
            bandwidth=bandwidth,
        )
        for name in names
    ]
