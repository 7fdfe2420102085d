"""``roost run`` from the command line: the record, the refusals with their exit codes, and what is left on disk."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest

import roost
from edited_plans import edited
from roost.cli.app import run
from roost.errors import PlanMismatch
from roost.plan import PlanDocument
from tiny_models import build, default_call

CALL = default_call("wan2.2")
WORKLOAD = (
    "--size", f"{CALL['width']}x{CALL['height']}", "--frames", str(CALL["num_frames"]),
    "--steps", str(CALL["num_inference_steps"]),
)  # fmt: skip
EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")
RULES = ("--policy", "rules")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wan2.2", tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(scope="module")
def plan(model: Path) -> Path:
    path = model.parent / "plan.yaml"
    assert run(["plan", str(model), *EMULATED, *RULES, *WORKLOAD, "-o", str(path)]) == 0
    return path


def test_json_record_has_every_documented_key_and_the_output_exists(plan, tmp_path, capsys) -> None:
    output = tmp_path / "fox.mp4"
    assert run(["run", str(plan), "--prompt", "a fox", "-o", str(output), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert set(record) == {
        "schema", "output", "digest", "latent_digest", "device_kind", "load_s", "seconds", "stages", "peak_bytes",
        "changes", "disturbances", "generations", "texts", "pictures", "loras", "compared", "warnings", "attention",
        "cache", "tiling", "latents", "resumed_from", "rehearsed", "workers",
    }  # fmt: skip
    assert (record["schema"], record["device_kind"], record["changes"], record["disturbances"]) == (
        1,
        "emulated",
        [],
        [],
    )
    assert record["warnings"] == []
    assert record["output"] == [str(output)]
    assert output.stat().st_size > 0
    assert [each["name"] for each in record["stages"]] == [
        "text encode",
        "denoise (high noise)",
        "denoise (low noise)",
        "decode",
    ]
    assert set(record["stages"][0]) == {"name", "component", "phase", "seconds", "peak_bytes", "reserved_bytes"}
    assert record["peak_bytes"] == max(each["peak_bytes"] for each in record["stages"]) > 0
    (generation,) = record["generations"]
    assert {name: record[name] for name in generation.keys() & record.keys()}.items() <= generation.items()
    assert (generation["prompt"], generation["seed"], generation["skipped"]) == ("a fox", 0, False)


def test_same_seed_same_digest_and_another_seed_another(plan, tmp_path, capsys) -> None:
    digests = []
    for seed in ("0", "0", "1"):
        assert run(["run", str(plan), "--prompt", "a fox", "--seed", seed, "--json"]) == 0
        digests.append(json.loads(capsys.readouterr().out)["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_smaller_workloads_run_under_the_plan(plan, capsys) -> None:
    assert run(["run", str(plan), "--prompt", "a fox", "--steps", "1", "--json"]) == 0


@pytest.mark.parametrize("larger", [("--steps", "99"), ("--frames", "81"), ("--size", "999x999"), ("--batch", "2")])
def test_larger_workloads_are_refused_with_the_command_that_plans_them(plan, capsys, larger) -> None:
    assert run(["run", str(plan), "--prompt", "a fox", *larger]) == 4
    line = capsys.readouterr().err
    assert line.startswith(f"error: {larger[0]}")
    assert f"{larger[0]} {larger[1]}" in line
    assert "roost plan" in line


def test_changed_weights_header_is_refused_with_the_difference_unless_forced(plan, model, tmp_path, capsys) -> None:
    moved = shutil.copytree(model, tmp_path / "model")
    config = moved / "transformer" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert run(["run", str(plan), "--prompt", "a fox", "--model", str(moved)]) == 4
    assert "transformer/config.json changed" in capsys.readouterr().err
    assert run(["run", str(plan), "--prompt", "a fox", "--model", str(moved), "--force", "--json"]) == 0
    assert "transformer/config.json changed" in json.loads(capsys.readouterr().out)["changes"][0]


def test_a_moved_model_runs_with_model_option(plan, model, tmp_path, capsys) -> None:
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    assert run(["run", str(plan), "--prompt", "a fox", "--model", str(moved), "--json"]) == 0


def test_a_cuda_plan_without_cuda_is_refused_naming_the_way_to_try_it(model, tmp_path, capsys) -> None:
    path = tmp_path / "cuda.yaml"
    assert (
        run(
            ["plan", str(model), "--gpu", "rtx-4090", "--ram", "64GiB", "--policy", "rules", *WORKLOAD, "-o", str(path)]
        )
        == 0
    )
    capsys.readouterr()
    assert run(["run", str(path), "--prompt", "a fox"]) == 4
    assert "--device emulated" in capsys.readouterr().err
    assert run(["run", str(path), "--prompt", "a fox", "--device", "emulated", "--json"]) == 0
    assert "emulated" in json.loads(capsys.readouterr().out)["changes"][0]


def test_an_emulated_plan_is_refused_on_cuda(plan, capsys) -> None:
    assert run(["run", str(plan), "--prompt", "a fox", "--device", "cuda"]) == 4


def test_a_budget_below_the_weights_is_exit_3_at_plan_and_at_run_and_5_when_forced(model, tmp_path, capsys) -> None:
    path = tmp_path / "small.yaml"
    options = (
        "--gpu",
        "emulated",
        "--vram",
        "256KiB",
        "--headroom",
        "0",
        "--mode",
        "speed",
        "--policy",
        "rules",
        *WORKLOAD,
    )
    assert run(["plan", str(model), *options, "-o", str(path)]) == 3
    assert path.exists()
    capsys.readouterr()
    assert run(["run", str(path), "--prompt", "a fox"]) == 3
    assert "over the budget" in capsys.readouterr().err
    assert run(["run", str(path), "--prompt", "a fox", "--force"]) == 5
    assert "emulated" in capsys.readouterr().err


def test_wrong_suffix_is_refused_before_anything_loads(plan, tmp_path, capsys) -> None:
    assert run(["run", str(plan), "--prompt", "a fox", "-o", str(tmp_path / "fox.png")]) == 2
    assert ".mp4" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_the_pipeline_refuses_is_the_users_to_mend(plan, capsys) -> None:
    assert run(["run", str(plan), "--prompt", "a fox", "--size", "50x50"]) == 2
    error = capsys.readouterr().err
    assert "divisible by 16" in error
    assert "unexpected" not in error


def test_a_plan_that_tiles_what_cannot_tile_is_refused(plan, tmp_path, capsys) -> None:
    def tile(document) -> None:
        document["components"]["text_encoder"]["tiling"] = True

    path = edited(plan, tmp_path / "edited.yaml", tile)
    assert run(["run", str(path), "--prompt", "a fox"]) == 4
    assert "has no tiling" in capsys.readouterr().err


def test_dry_run_says_what_would_happen_and_loads_nothing(plan, capsys) -> None:
    assert run(["run", str(plan), "--prompt", "a fox", "--dry-run", "--steps", "1"]) == 0
    shown = capsys.readouterr().out
    assert "would run" in shown
    assert ", 1 steps, seed 0, on emulated" in shown


def test_running_a_model_plans_it_first_and_says_where_the_plan_is_kept(model, capsys) -> None:
    assert run(["run", str(model), *EMULATED, *WORKLOAD, "--prompt", "a fox", "--json"]) == 0
    captured = capsys.readouterr()
    kept = Path(captured.err.split("kept at ")[1].splitlines()[0])
    assert roost.load_plan(kept).model.path == str(model)


def test_a_plan_that_misses_a_stack_is_refused(plan, tmp_path, capsys) -> None:
    def shrink(document) -> None:
        document["components"]["transformer"]["stacks"][0]["count"] = 1

    path = edited(plan, tmp_path / "edited.yaml", shrink)
    assert run(["run", str(path), "--prompt", "a fox"]) == 4
    assert "transformer" in capsys.readouterr().err


def _placed(plan: PlanDocument) -> dict[str, object]:
    """Where everything lies. A kept trace knows the order of stacks, and without one it is that of their names."""
    return {
        name: (each.strategy, each.load_bytes, each.resident_blocks, {stack.name: stack.bytes for stack in each.stacks})
        for name, each in plan.components.items()
    }


def test_public_api_gives_a_pipeline_ready_to_call(model, plan) -> None:
    document = roost.load_plan(plan)
    made = roost.make_plan(
        model,
        gpu="emulated",
        vram="64MiB",
        headroom="0",
        policy="rules",
        size=f"{CALL['width']}x{CALL['height']}",
        frames=CALL["num_frames"],
        steps=CALL["num_inference_steps"],
    )
    assert (made.model, _placed(made)) == (document.model, _placed(document))
    pipeline = roost.load_pipeline(document)
    video = pipeline(**CALL, output_type="pt").frames
    assert video.shape[1] == CALL["num_frames"]
    pipeline.roost.close()
    with pytest.raises(PlanMismatch):
        roost.load_pipeline(document.model_copy(update={"model": document.model.model_copy(update={"files": {}})}))


def test_a_stray_weight_file_at_the_root_is_not_loaded_in_place_of_a_component(plan, model, tmp_path, capsys) -> None:
    moved = shutil.copytree(model, tmp_path / "model")
    stray = next((moved / "vae").glob("*.safetensors"))
    from safetensors.torch import load_file, save_file

    save_file({name: weight + 1 for name, weight in load_file(stray).items()}, moved / stray.name)
    digests = []
    for directory in (model, moved):
        assert run(["run", str(plan), "--prompt", "a fox", "--model", str(directory), "--json"]) == 0
        digests.append(json.loads(capsys.readouterr().out)["digest"])
    assert digests[0] == digests[1]


def test_a_plan_that_places_what_the_model_lacks_is_refused(plan, tmp_path, capsys) -> None:
    def escape(document) -> None:
        document["components"]["vae_2"] = copy.deepcopy(document["components"]["vae"])
        document["load_order"].append("vae_2")

    assert run(["run", str(edited(plan, tmp_path / "more.yaml", escape)), "--prompt", "a fox"]) == 4
    assert "'vae_2'" in capsys.readouterr().err


def test_component_names_that_are_paths_are_no_plan(plan, tmp_path, capsys) -> None:
    def escape(document) -> None:
        document["components"]["../vae"] = document["components"].pop("vae")
        document["load_order"] = ["../vae" if name == "vae" else name for name in document["load_order"]]

    assert run(["run", str(edited(plan, tmp_path / "path.yaml", escape)), "--prompt", "a fox"]) == 2


def test_a_role_plan_says_that_roles_are_not_run(model, tmp_path, capsys) -> None:
    path = tmp_path / "role.yaml"
    assert run(["plan", str(model), *EMULATED, *WORKLOAD, "--role", "encoder", "-o", str(path)]) == 0
    capsys.readouterr()
    assert run(["run", str(path), "--prompt", "a fox", "--dry-run"]) == 2
    assert "role encoder" in capsys.readouterr().err


def test_planning_options_beside_a_plan_are_refused(plan, capsys) -> None:
    assert run(["run", str(plan), "--prompt", "a fox", "--vram", "1GiB"]) == 2
    assert "--vram: the plan has decided that" in capsys.readouterr().err


def test_dry_run_as_json_is_one_object(plan, capsys) -> None:
    assert run(["run", str(plan), "--prompt", "a fox", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["device_kind"], document["output"]) == (1, "emulated", None)
    assert document["workload"]["steps"] == CALL["num_inference_steps"]


def test_the_plan_s_batch_is_the_run_s_default(model, tmp_path, capsys) -> None:
    path, output = tmp_path / "two.yaml", tmp_path / "fox.mp4"
    assert run(["plan", str(model), *EMULATED, *WORKLOAD, "--batch", "2", "-o", str(path)]) == 0
    capsys.readouterr()
    assert run(["run", str(path), "--prompt", "a fox", "-o", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output"] == [str(tmp_path / f"fox-{index}.mp4") for index in (0, 1)]


def test_a_pipeline_that_needs_more_than_a_prompt_is_refused_before_loading(model, tmp_path, capsys) -> None:
    moved = shutil.copytree(model, tmp_path / "model")
    index = moved / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "WanImageToVideoPipeline"}))
    words = ["plan", str(moved), *EMULATED, *WORKLOAD, "--policy", "rules", "-o", str(tmp_path / "i2v.yaml")]
    assert run(words) == 0
    capsys.readouterr()
    assert run(["run", str(tmp_path / "i2v.yaml"), "--prompt", "a fox"]) == 2
    assert "needs 'image'" in capsys.readouterr().err
