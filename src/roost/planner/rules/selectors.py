"""Selectors: how an option names components. ``parse_set`` reads one ``--set SELECTOR=STRATEGY[,key=value…]``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable

from roost.errors import UsageError
from roost.facts.request import GROUPS, STRATEGIES, TIERS, Group, SetChoice, Strategy
from roost.facts.resident_policy import RESIDENT_POLICY, blocks_of_stacks, policy_of
from roost.option_spelling import given, option

DEFAULT_GROUPS: tuple[Group, ...] = ("text_encoder", "image_encoder", "vae")


def normalise(text: str) -> str:
    return text.strip().replace("-", "_").lower()


def parse_selectors(text: str, name: str) -> tuple[str, ...]:
    """``"DiT, vae,vae"`` of the option ``name`` as ``("dit", "vae")``; ``none`` stands alone and gives nothing."""
    parts = dict.fromkeys(normalise(part) for part in text.split(","))
    if "" in parts:
        raise UsageError(f"{given(name, text)} has an empty selector; write names with commas between, or none.")
    if "none" in parts:
        if len(parts) > 1:
            raise UsageError(f"{given(name, text)} mixes none with other selectors; none stands alone.")
        return ()
    return tuple(parts)


def check_selectors(selectors: Iterable[str], components: Iterable[str], typed: str) -> None:
    """Raises UsageError for a selector that is neither a component of the model nor a group."""
    names = [normalise(name) for name in components]
    known = [*names, *GROUPS, "default", "all"]
    for selector in selectors:
        if selector not in known:
            close = difflib.get_close_matches(selector, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(dict.fromkeys(known))}."
            raise UsageError(f"{typed}: no component or group is called {selector!r}; {hint}")


def rank(selector: str, name: str | None, group: Group | None) -> int | None:
    """How closely the selector matches a component (or, with ``name`` None, a whole group); None when it doesn't.

    0 its exact name, 1 its group, 2 ``default``, 3 ``all``.
    """
    if name is not None and selector == normalise(name):
        return 0
    if group is not None and selector == group:
        return 1
    if selector == "default" and group in DEFAULT_GROUPS:
        return 2
    return 3 if selector == "all" else None


def parse_set(text: str) -> SetChoice:
    """One ``--set`` value. Raises UsageError naming the option, the part that is wrong and what is allowed."""
    typed = option("set", text)
    target, _, value = text.partition("=")
    strategy, *pairs = [part.strip() for part in value.split(",")]
    strategy = strategy.lower().replace("_", "-")
    if not target.strip() or strategy not in STRATEGIES:
        raise UsageError(f"{typed}: write SELECTOR=STRATEGY[,key=value…], with a strategy of {', '.join(STRATEGIES)}.")
    selector = normalise(target)
    if selector == "none" or "," in selector:
        raise UsageError(f"{typed}: {selector!r} selects no single component or group; give each its own.")
    parameters = dict(_parse_parameter(pair, strategy, typed) for pair in pairs)
    if len(parameters) < len(pairs):
        raise UsageError(f"{typed}: a parameter is given twice.")
    return SetChoice(option=f"--set {text}", text=text, selector=selector, strategy=strategy, parameters=parameters)


def _parse_parameter(pair: str, strategy: Strategy, typed: str) -> tuple[str, object]:
    readers = _PARAMETERS.get(strategy, {})
    key, _, value = pair.partition("=")
    key = normalise(key)
    if key not in readers:
        allowed = ", ".join(readers) or "none"
        raise UsageError(f"{typed}: {strategy} has no parameter {key!r}; allowed: {allowed}.")
    try:
        return key, readers[key](value.strip().lower())
    except ValueError as problem:
        raise UsageError(f"{typed}: {key} {problem}.") from None


def _at_least(minimum: int) -> Callable[[str], object]:
    def read(text: str) -> object:
        if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) >= minimum):
            raise ValueError(f"must be a whole number from {minimum}")
        return int(text)

    return read


def _one_of(**values: object) -> Callable[[str], object]:
    def read(text: str) -> object:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return values[text]

    return read


def _policy(text: str) -> object:
    if not re.match(RESIDENT_POLICY, text):
        raise ValueError("must be one of strided, leading, or numbers of blocks for each stack, like 10+8")
    return policy_of(blocks_of_stacks(text)) or text


_SWITCH = _one_of(true=True, false=False)
_OF_VAES = {"tiling": _SWITCH, "slicing": _SWITCH}
_PARAMETERS: dict[Strategy, dict[str, Callable[[str], object]]] = {
    "layerwise-offload": {
        "resident_blocks": _at_least(0),
        "resident_policy": _policy,
        "prefetch": _at_least(1),
        "hold": _SWITCH,
        "leaf_level": _SWITCH,
        **dict.fromkeys(TIERS, _at_least(0)),
        **_OF_VAES,
    },
    "component-offload": {"linger": _SWITCH, **_OF_VAES},
    "snapshot-offload": {"linger": _SWITCH, **_OF_VAES},
    "resident": _OF_VAES,
}
