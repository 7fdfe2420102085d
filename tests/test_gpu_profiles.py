"""GPU profiles: every file is complete and plausible, and a card is found however people write it."""

import math
from pathlib import Path

import pytest

from roost.errors import UsageError
from roost.facts.machine import GpuProfile, Number
from roost.profiles import gpus
from roost.profiles.gpus import find_gpu_profile, load_gpu_profiles, match_gpu_profile

MiB, GiB = 1024**2, 1024**3
PROFILES = load_gpu_profiles()
REQUIRED = [
    "rtx-2060",
    "rtx-2060-12gb",
    "rtx-2070",
    "rtx-2080",
    "rtx-2080-ti",
    "rtx-3050",
    "rtx-3060",
    "rtx-3070",
    "rtx-3070-ti",
    "rtx-3080",
    "rtx-3080-12gb",
    "rtx-3090",
    "rtx-3090-ti",
    "rtx-4060",
    "rtx-4060-ti-8gb",
    "rtx-4060-ti-16gb",
    "rtx-4070",
    "rtx-4070-super",
    "rtx-4070-ti-super",
    "rtx-4080",
    "rtx-4080-super",
    "rtx-4090",
    "rtx-3080-laptop",
    "rtx-4070-laptop",
    "rtx-4090-laptop",
    "rtx-5090-laptop",
    "rtx-5060-ti-16gb",
    "rtx-5070",
    "rtx-5070-ti",
    "rtx-5080",
    "rtx-5090",
    "rtx-a4000",
    "rtx-a5000",
    "rtx-a6000",
    "rtx-4000-ada",
    "rtx-6000-ada",
    "rtx-pro-6000",
    "t4",
    "v100-16gb",
    "v100-32gb",
    "a10",
    "l4",
    "l40s",
    "a100-40gb",
    "a100-80gb",
    "h100-pcie",
    "h100-sxm",
    "h200",
    "b200",
    "gb10",
    "mi300x",
]


def numbers_of(profile: GpuProfile) -> dict[str, Number]:
    values = {name: getattr(profile, name) for name in GpuProfile.__slots__}
    return {name: value for name, value in values.items() if isinstance(value, Number)}


def test_every_card_of_the_promised_list_has_a_profile():
    assert set(REQUIRED) <= set(PROFILES)
    assert len(PROFILES) == len(list(Path(gpus.__file__).with_name("gpus").glob("*.yaml")))


@pytest.mark.parametrize("key", PROFILES)
def test_each_number_is_finite_positive_and_says_where_it_comes_from(key):
    for name, number in numbers_of(PROFILES[key]).items():
        assert type(number.value) in (int, float), name
        assert math.isfinite(number.value), name
        assert number.value > 0, name
        assert len(number.source) > 5, name


@pytest.mark.parametrize("key", PROFILES)
def test_figures_are_in_the_range_of_real_cards(key):
    profile = PROFILES[key]
    assert 5 * GiB < profile.total_bytes.value < 200 * GiB
    assert 2e11 < profile.memory_bytes_per_s.value <= 8e12
    assert profile.fp16_flop_per_s
    assert 1.5e13 < profile.fp16_flop_per_s.value < 3e15
    assert isinstance(profile.total_bytes.value, int)
    if key != "gb10":
        assert profile.pcie_generation
        assert profile.pcie_lanes
        assert profile.pcie_generation.value in (3, 4, 5)
        assert profile.pcie_lanes.value in (8, 16)


@pytest.mark.parametrize("key", [key for key in PROFILES if PROFILES[key].platform == "cuda"])
def test_rates_exist_exactly_where_the_architecture_has_the_format(key):
    profile = PROFILES[key]
    capability = tuple(map(int, str(profile.compute_capability).split(".")))
    assert (profile.bf16_flop_per_s is not None) == (capability >= (8, 0))
    assert (profile.fp8_flop_per_s is not None) == (capability >= (8, 9))
    if profile.fp8_flop_per_s and profile.bf16_flop_per_s:
        assert profile.fp8_flop_per_s.value == pytest.approx(2 * profile.bf16_flop_per_s.value, rel=0.02)
        assert profile.bf16_flop_per_s.value == profile.fp16_flop_per_s.value


@pytest.mark.parametrize(
    ("key", "total_mib", "bytes_per_s", "fp16", "link"),
    [
        ("rtx-3060", 12288, 360e9, 25.5e12, (4, 16)),
        ("rtx-3090", 24576, 936e9, 71e12, (4, 16)),
        ("rtx-4060-ti-16gb", 16380, 288e9, 44.1e12, (4, 8)),
        ("rtx-4080", 16376, 716.8e9, 97.5e12, (4, 16)),
        ("rtx-4090", 24564, 1008e9, 165.2e12, (4, 16)),
        ("rtx-5090", 32607, 1792e9, 209.5e12, (5, 16)),
        ("a100-80gb", 81920, 2039e9, 312e12, (4, 16)),
        ("h100-sxm", 81559, 3350e9, 989.5e12, (5, 16)),
        ("h200", 143771, 4800e9, 989.5e12, (5, 16)),
        ("t4", 15360, 320e9, 65e12, (3, 16)),
    ],
)
def test_well_known_cards_have_their_published_figures(key, total_mib, bytes_per_s, fp16, link):
    profile = PROFILES[key]
    assert profile.total_bytes.value == total_mib * MiB
    assert profile.memory_bytes_per_s.value == pytest.approx(bytes_per_s)
    assert profile.fp16_flop_per_s.value == pytest.approx(fp16)
    assert (profile.pcie_generation.value, profile.pcie_lanes.value) == link


def test_amd_cards_are_not_on_the_cuda_platform():
    assert PROFILES["mi300x"].platform == "rocm"
    assert {each.platform for key, each in PROFILES.items() if key != "mi300x"} == {"cuda"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("rtx-4090", "rtx-4090"),
        ("RTX 4090", "rtx-4090"),
        ("rtx4090", "rtx-4090"),
        ("GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-4090-laptop"),
        ("rtx 4070 Super", "rtx-4070-super"),
        ("A100 80GB", "a100-80gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("H200", "h200"),
        ("Tesla T4", "t4"),
        ("a10", "a10"),
        ("RTX 3080", "rtx-3080"),
        ("4090", "rtx-4090"),
        ("3060 Ti", "rtx-3060-ti"),
        ("A6000", "rtx-a6000"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_a_card_is_found_however_it_is_written(text, key):
    assert find_gpu_profile(text).key == key


@pytest.mark.parametrize("key", PROFILES)
def test_every_key_and_alias_finds_its_own_card(key):
    assert find_gpu_profile(key.upper()).key == key
    for alias in PROFILES[key].aliases:
        assert find_gpu_profile(alias).key == key


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a100", ["a100-40gb", "a100-80gb", "a100-80gb-pcie"]),
        ("H100", ["h100-nvl", "h100-pcie", "h100-sxm"]),
        ("RTX 4060 Ti", ["rtx-4060-ti-16gb", "rtx-4060-ti-8gb"]),
        ("5060ti", ["rtx-5060-ti-16gb", "rtx-5060-ti-8gb"]),
    ],
)
def test_a_name_that_several_cards_share_lists_them_all(text, keys):
    with pytest.raises(UsageError, match=f"say which one: {', '.join(keys)}\\."):
        find_gpu_profile(text)


@pytest.mark.parametrize(("text", "near"), [("rtx-4900", "rtx-4090"), ("h30", "h20"), ("rtx 6000", "rtx-6000-ada")])
def test_an_unknown_name_gets_the_nearest_keys(text, near):
    with pytest.raises(UsageError, match=rf"Did you mean .*{near}.*\? List them with: roost gpus"):
        find_gpu_profile(text)


@pytest.mark.parametrize("text", ["", "nvidia", "rtx", "../h200", "\x1b[31m\nvoodoo2"])
def test_a_hopeless_name_is_refused_in_one_printable_line(text):
    with pytest.raises(UsageError, match="is not a known card") as caught:
        find_gpu_profile(text)
    assert str(caught.value).isprintable()


def test_a_present_card_is_matched_by_product_name_and_memory():
    product = "NVIDIA GeForce RTX 3080"
    assert match_gpu_profile(product, 10240 * MiB).key == "rtx-3080"
    assert match_gpu_profile(product, 12288 * MiB).key == "rtx-3080-12gb"
    assert match_gpu_profile(product, 20480 * MiB) is None
    assert match_gpu_profile("Tesla V100-SXM2-16GB", 16160 * MiB).key == "v100-16gb"
    assert match_gpu_profile("Voodoo 2", 12 * MiB) is None


def test_no_two_profiles_claim_the_same_product_and_memory():
    seen = {}
    for key, profile in PROFILES.items():
        for name in (profile.name, *profile.aliases):
            assert match_gpu_profile(name, profile.total_bytes.value).key == key, seen.setdefault(name, key)
