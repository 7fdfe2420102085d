"""CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER and MIG devices against a made-up driver."""

import pytest

from fake_nvml import FakeCard, GiB, mig_card, survey

UUIDS = ["GPU-aaaa1111-0000", "GPU-aaaa2222-0000", "GPU-bbbb3333-0000"]


def visible(environ, cards=None):
    cards = cards or [FakeCard(uuid) for uuid in UUIDS]
    return [gpu.facts.uuid for gpu in survey(*cards, environ=environ).gpus]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, UUIDS),
        ("1", [UUIDS[1]]),
        ("2,0", [UUIDS[2], UUIDS[0]]),
        (" 2 , 1", [UUIDS[2], UUIDS[1]]),
        (UUIDS[1], [UUIDS[1]]),
        ("GPU-b,GPU-aaaa1", [UUIDS[2], UUIDS[0]]),
        ("GPU-aaaa", []),  # two cards begin like this
        ("0,GPU-ffff,1", [UUIDS[0]]),
        ("1,7,0", [UUIDS[1]]),
        ("1,-1,0", [UUIDS[1]]),
        ("0,0", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("", []),
    ],
)
def test_cuda_visible_devices_selects_as_cuda_does(variable, expected):
    assert visible({} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}) == expected


def test_hidden_cards_are_a_problem_that_names_the_variable():
    found = survey(FakeCard(), environ={"CUDA_VISIBLE_DEVICES": ""})
    assert found.problem == "CUDA_VISIBLE_DEVICES='' hides every GPU."


@pytest.mark.parametrize(
    ("environ", "noted"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1"}, True),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, True),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, False),
        ({"CUDA_VISIBLE_DEVICES": UUIDS[1]}, False),
        ({}, False),
    ],
)
def test_indices_of_several_cards_are_noted_as_doubtful(environ, noted):
    notes = survey(FakeCard(UUIDS[0]), FakeCard(UUIDS[1]), environ=environ).gpus[0].notes
    assert any("fastest first" in note for note in notes) == noted


def test_the_order_of_different_cards_is_doubtful_without_any_variable():
    notes = survey(FakeCard(UUIDS[0], Name="Tesla T4"), FakeCard(UUIDS[1])).gpus[0].notes
    assert "fastest first" in notes[0]
    assert survey(FakeCard(), environ={"CUDA_VISIBLE_DEVICES": "0"}).gpus[0].notes == ()


def test_mig_devices_stand_for_their_card():
    found = survey(FakeCard(UUIDS[0]), mig_card("MIG-1111", "MIG-2222"))
    assert [(gpu.facts.uuid, gpu.mig, gpu.index) for gpu in found.gpus] == [
        ("MIG-1111", True, 1),
        ("MIG-2222", True, 1),
        (UUIDS[0], False, 0),
    ]
    first = found.gpus[0]
    assert first.facts.total_bytes == 5 * GiB
    assert first.facts.compute_capability == "8.9"  # asked of the card


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("MIG-2222", ["MIG-2222"]),
        ("MIG-22", ["MIG-2222"]),
        ("1", ["MIG-1111"]),
        ("GPU-cccc", ["MIG-1111"]),
        ("MIG-", []),
    ],
)
def test_a_mig_device_is_chosen_by_uuid_or_as_the_first_of_its_card(variable, expected):
    cards = [FakeCard(UUIDS[0]), mig_card("MIG-1111", "MIG-2222")]
    assert visible({"CUDA_VISIBLE_DEVICES": variable}, cards) == expected
