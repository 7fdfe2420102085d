"""Which of a plan's workers are what to a request: where it begins, where it goes on, who answers for a component."""

from __future__ import annotations

from collections.abc import Sequence

from roost.fleet.dispatch import Post
from roost.fleet.plans import plan_of
from roost.fleet.tasks import Onward
from roost.plan import PlanDocument

_FIRST_KINDS = ("text_encoder", "image_encoder", "dit", "vae")  # in a pipeline's usual order


def posts_of(document: PlanDocument) -> list[Post]:
    """The plan's workers, in their order."""
    return [
        Post(
            name=each.name,
            components=frozenset(each.components),
            decodes="decode" in plan_of(document, each).role.stages,
            denoises="denoise" in plan_of(document, each).role.stages,
        )
        for each in document.workers
    ]


def first_posts(posts: Sequence[Post], plan: PlanDocument) -> tuple[str, ...]:
    """The workers with what a pipeline usually uses first; where it uses another, it travels on by itself."""
    kinds = {name: each.kind for name, each in plan.components.items()}
    for kind in _FIRST_KINDS:
        found = tuple(each.name for each in posts if any(kinds[name] == kind for name in each.components))
        if found:
            return found
    return tuple(each.name for each in posts)


def next_posts(posts: Sequence[Post], onward: Onward) -> tuple[str, ...]:
    """The workers that have what a request needs next; one that must call it from where it denoises goes there."""
    if onward.through:
        return tuple(each.name for each in posts if each.denoises)
    having = [each for each in posts if onward.component in each.components]
    decoding = [each for each in having if each.decodes]
    return tuple(each.name for each in (decoding if onward.decodes and decoding else having))


def owners_of(posts: Sequence[Post], plan: PlanDocument) -> dict[str, tuple[str, ...]]:
    """Who answers other workers' calls of each component, the first that is there; of VAEs, those that decode."""
    found = {}
    for name, each in plan.components.items():
        having = [post for post in posts if name in post.components]
        decoding = [post for post in having if post.decodes]
        found[name] = tuple(post.name for post in (decoding if each.kind == "vae" and decoding else having))
    return found


def called_owners(posts: Sequence[Post], plan: PlanDocument) -> tuple[tuple[str, ...], ...]:
    """The owners of all components that a worker which denoises may have to call, each group once."""
    denoising = [each for each in posts if each.denoises]
    owners = dict.fromkeys(owners_of(posts, plan).values())
    return tuple(each for each in owners if not all(post.name in each for post in denoising))
