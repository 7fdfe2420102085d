"""What to call a pipeline with for a request; what its call can't take is refused."""

from __future__ import annotations

from typing import Any

from roost.errors import UsageError
from roost.option_spelling import option
from roost.pipelines.calls import GenerationRequest, workload_arguments
from roost.pipelines.signatures import BATCH, call_parameters, name_among, needed_parameters, takes_list

_OF_EACH_OUTPUT = ("prompt", "generator")


def accepts(pipeline: type, argument: str) -> bool:
    """Whether the pipeline class's call has such a parameter."""
    return argument in call_parameters(pipeline)


def call_arguments(pipeline: type, request: GenerationRequest) -> dict[str, Any]:
    """The arguments of the pipeline class's call.

    What it has no parameter for is left out of the workload: it has its own size, steps or guidance then. Raises
    UsageError for anything else that it has no parameter for, and for a parameter that it needs and nobody gives.
    """
    parameters = call_parameters(pipeline)
    asked: dict[str, object] = {"negative_prompt": request.negative_prompt, **request.more}
    if request.group:
        check_takes_groups(pipeline)
        if request.negative_prompt is not None:
            asked["negative_prompt"] = [request.negative_prompt] * len(request.group)
    if request.batch > 1:
        asked[name_among(BATCH, parameters) or BATCH[0]] = request.batch
    taken = workload_arguments(request, parameters)
    arguments = {name: value for name, value in {**taken, **asked}.items() if value is not None}
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise UsageError(
            f"{pipeline.__name__} has no parameter {', '.join(map(repr, unknown))}; leave that option out."
        )
    missing = [name for name in needed_parameters(parameters) if name not in arguments]
    if missing:
        raise UsageError(
            f"{pipeline.__name__} needs {', '.join(map(repr, missing))}, which no option gives; call the pipeline of"
            " roost.load_pipeline(plan) from Python."
        )
    return arguments


def check_takes_groups(pipeline: type) -> None:
    """Raises UsageError for a class whose call makes no outputs of several prompts, each from its own seed."""
    parameters = call_parameters(pipeline)
    lacking = [name for name in _OF_EACH_OUTPUT if not takes_list(parameters, name)]
    if lacking:
        raise UsageError(
            f"{pipeline.__name__} takes no list as {' or '.join(map(repr, lacking))}, so prompts can't share a call;"
            f" leave {option('batch')} out."
        )
