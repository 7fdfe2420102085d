"""Deployment roles: what each would load, keep and skip. Source: placement rules, section 6."""

from __future__ import annotations

from collections.abc import Mapping

from roost.errors import UsageError
from roost.facts.model import Inventory, ModelProfile, RolePart
from roost.facts.request import ROLES, Role
from roost.option_spelling import given
from roost.planner.rules.names import base_name
from roost.units import format_bytes

_ALIASES: dict[str, Role] = {"denoising": "denoiser", "encode": "encoder", "decode": "decoder"}

_STAGES: dict[Role, tuple[str, ...]] = {
    "monolithic": ("encode", "denoise", "decode"),
    "encoder": ("encode",),
    "denoiser": ("denoise",),
    "decoder": ("decode",),
    "encoder-decoder": ("encode", "decode"),
}
# A role that is several in one.
_PARTS: Mapping[Role, tuple[Role, ...]] = {"encoder-decoder": ("encoder", "decoder")}

_MODULES: dict[Role, str] = {
    "encoder": (
        "text_encoder tokenizer image_encoder image_processor feature_extractor processor connectors duration_head"
        " vision_language_encoder hy3dshape_conditioner hy3dshape_image_processor"
    ),
    "denoiser": (
        "transformer unconditional_transformer video_dit audio_dit dual_tower_bridge hy3dshape_model unet prior"
        " controlnet"
    ),
    "decoder": "vae audio_vae video_vae vocoder diffusion_decoder hy3dshape_vae movq vqvae",
}
_ROLE_BY_MODULE = {module: role for role, modules in _MODULES.items() for module in modules.split()}


def parse_role(text: str) -> Role:
    """The role or its alias, in any case; raises UsageError that lists the valid ones."""
    name = text.strip().lower()
    role = _ALIASES.get(name, name)
    if role not in ROLES:
        raise UsageError(f"{given('role', text)} is not a role; the roles are {', '.join(ROLES)}.")
    return role


def role_of(module: str) -> Role | None:
    """The role that a module belongs to by the longest matching key; None when every role keeps it.

    A combined pipeline names the parts of its prior ``prior_text_encoder`` and so on.
    """
    of_prior = role_of(module.removeprefix("prior_")) if module.startswith("prior_") else None
    if of_prior is not None:
        return of_prior
    keys = [key for key in _ROLE_BY_MODULE if module == key or module.startswith(f"{key}_")]
    return _ROLE_BY_MODULE[max(keys, key=len)] if keys else None


def view(inventory: Inventory, profile: ModelProfile, role: Role) -> RolePart:
    """What ``role`` would load of the model, with the cost of components whose role is unknown."""
    sizes = {each.name: each.load_bytes for each in inventory.components}
    modules = (*sizes, *inventory.weightless)
    needed = {name: _needs(role, name, profile.role_extras) for name in modules}
    warnings = tuple(
        f"component {name!r} belongs to no known role, so every role loads its {format_bytes(size)}."
        for name, size in sizes.items()
        if role != "monolithic" and role_of(name) is None
    )
    loads = tuple(name for name in sizes if needed[name])
    return RolePart(
        name=role,
        stages=_STAGES[role],
        loads=loads,
        keeps=tuple(name for name in inventory.weightless if needed[name]),
        skips=tuple(name for name in modules if not needed[name]),
        load_bytes=sum(sizes[name] for name in loads),
        warnings=warnings,
    )


def _needs(role: Role, module: str, extras: Mapping[str, tuple[str, ...]]) -> bool:
    parts = _PARTS.get(role, (role,))
    if role == "monolithic" or role_of(module) in (*parts, None):
        return True
    # A numbered module follows its base.
    return any(extra in (module, base_name(module)) for part in parts for extra in extras.get(part, ()))
