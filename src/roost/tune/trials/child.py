"""The process of one trial: reads what to load, loads it, and measures a generation for each line it is given."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost.errors import OutOfMemory, RoostError
from roost.facts.model import ClassFacts, GivenFile
from roost.option_spelling import at_a_shell
from roost.plan import ComponentPlan
from roost.plan.loras import lora_files
from roost.probes.files.formats.weights import quantised_weights
from roost.probes.files.weights import read_weight_file
from roost.probes.machine.host import peak_rss_bytes, private_bytes
from roost.profiles.class_facts import load_class_facts
from roost.tune.results.records import PLAIN
from roost.tune.trials.messages import (
    Beat,
    Failed,
    Loaded,
    Message,
    Phase,
    StepTook,
    Timed,
    TrialRequest,
    decode_request,
    encode,
)
from roost.tune.trials.peers import peer_named
from roost.units import format_bytes

if TYPE_CHECKING:
    from roost.residency.engine.stages import StageEvent
    from roost.residency.run.components import LoadComponent
    from roost.residency.run.loader import Source
    from roost.residency.run.plain import Place
    from roost.residency.run.trial import TrialSetup

_BEAT_S = 0.5


class Reporter:
    """The line to the parent. Its thread beats, and ends this process when the parent is gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._writing = threading.Lock()
        self._host_bytes: tuple[int, int] | None = None  # where it began, and how much it may grow
        threading.Thread(target=self._beat, name="roost-beat", daemon=True).start()

    def say(self, message: Message) -> None:
        """Sends one message."""
        line = encode(message)
        with self._writing:
            while line:
                line = line[os.write(self._descriptor, line) :]

    def limit_host(self, count: int) -> None:
        """From now on this process may take ``count`` bytes of host memory; beyond, it fails for want of memory."""
        self._host_bytes = (private_bytes() or 0, count)

    def on_component(self, name: str) -> None:
        self.say(Phase(phase=f"loading {name}"))

    def on_event(self, event: StageEvent) -> None:
        """Steps by the device's clock: the host runs ahead, and waits for several at once."""
        if event.what == "begin":
            self.say(Phase(phase=f"in {event.stage} ({event.component})"))
        elif event.what == "took" and event.seconds is not None:
            self.say(StepTook(seconds=event.seconds))

    def _beat(self) -> None:
        while True:
            try:
                self.say(Beat())
                self._check_host()
            except OSError:  # nobody listens any more
                os._exit(1)
            time.sleep(_BEAT_S)

    def _check_host(self) -> None:
        now_bytes = private_bytes()
        if self._host_bytes is None or now_bytes is None:
            return
        began_bytes, limit_bytes = self._host_bytes
        if now_bytes - began_bytes > limit_bytes:
            took, limit = format_bytes(now_bytes - began_bytes), format_bytes(limit_bytes)
            self.say(Failed(status="oom", reason=f"host memory: it took {took} and may take {limit}"))
            os._exit(1)


def serve(request: TrialRequest, reporter: Reporter) -> None:
    """Loads what ``request`` says, then answers every further line of stdin with what one generation took."""
    reporter.say(Phase(phase="importing the libraries"))
    from roost.pipelines.calls import GenerationRequest  # imported here: these bring torch
    from roost.residency.run.trial import open_trial

    if request.host_bytes is not None:
        reporter.limit_host(request.host_bytes)
    call = GenerationRequest(**request.call)
    with open_trial(_setup(request), reporter.on_component, reporter.on_event) as trial:
        if request.warm_up_steps is not None:
            trial.warm_up(replace(call, steps=request.warm_up_steps))
        reporter.say(Loaded(load_s=trial.load_s))
        for _ in sys.stdin:
            reporter.say(Timed(result=replace(trial.measure(call), host_peak_bytes=peak_rss_bytes())))


def _setup(request: TrialRequest) -> TrialSetup:
    from roost.residency.run.trial import TrialSetup  # imported here: it brings torch

    return TrialSetup(
        plan=request.plan,
        model_dir=request.model_dir,
        device_kind=request.device_kind,
        budget_bytes=request.budget_bytes,
        place=None if request.peer is None else _place_of(request.peer),
        link_bytes_per_s=request.link_bytes_per_s,
        source=_source_of(request),
    )


def _source_of(request: TrialRequest) -> Source:
    from roost.residency.run.components import read_component  # imported here: these bring torch
    from roost.residency.run.loader import Source
    from roost.residency.run.loras import LoraLoader
    from roost.residency.run.sources.given_files import GivenFiles

    facts = load_class_facts()
    otherwise = reading_random(request.device_kind) if request.random_weights else read_component
    given = GivenFiles(files=_given_files(request), class_facts=facts, otherwise=otherwise)
    loras = lora_files(request.plan.loras)
    load = LoraLoader(request.plan, loras, given.read) if loras else given.load
    return Source(load=load, class_facts=facts, given=given)


def _given_files(request: TrialRequest) -> dict[str, GivenFile]:
    """The files that stand in place of components' own weights, with their recipes."""
    from roost.pipelines.formats.recipes import derive_recipe  # imported here: these bring torch
    from roost.pipelines.formats.skeletons import ComponentConfig

    found, facts = {}, load_class_facts()
    own = {name: request.model_dir / path for name, path in request.plan.kept_as_stored.items()}
    for name, path in {**request.plan.given_files, **own}.items():
        planned, file = request.plan.components[name], read_weight_file(str(path))
        config = ComponentConfig(
            name=name,
            described=planned,
            config_dir=request.model_dir,
            facts=facts.get(planned.class_name, ClassFacts()),
        )
        recipe = derive_recipe(config, file, quantised_weights(file, file.path))
        found[name] = GivenFile(file=file, recipe=recipe)
    return found


def _place_of(peer: str) -> Place:
    from roost.residency.run.plain import move_whole  # imported here: it brings torch

    return move_whole if peer == PLAIN else peer_named(peer).place


def reading_random(device_kind: str) -> LoadComponent:
    """What makes components at random."""
    from roost.pipelines.build import random_component  # imported here: it brings torch

    device, facts = "cuda" if device_kind == "cuda" else "cpu", load_class_facts()

    def read(name: str, plan: ComponentPlan, model_dir: Path) -> Any:
        return random_component(name, plan, model_dir, class_facts=facts, device=device)

    return read


def main() -> None:
    """Runs one trial; a failure is a message to the parent, never a traceback."""
    reporter = Reporter(int(sys.argv[-1]))
    try:
        with os.fdopen(int(sys.argv[-2]), "rb") as file:
            request = decode_request(file.read())
        with at_a_shell():  # what it says stands in results, as in plans
            serve(request, reporter)
    except OutOfMemory as error:
        reporter.say(Failed(status="oom", reason=str(error)))
    except Exception as error:  # whatever a model's code raises costs this candidate only
        kind = "" if isinstance(error, RoostError) else f"{type(error).__name__}: "
        reporter.say(Failed(status="crashed", reason=" ".join(f"{kind}{error}".split())[:500]))


if __name__ == "__main__":
    main()
