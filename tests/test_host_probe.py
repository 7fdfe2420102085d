"""Host memory from made-up control group trees: version 1, version 2, both, nested, hidden and broken ones."""

from pathlib import Path
from types import SimpleNamespace as Fields

import psutil
import pytest

from roost.facts.machine import PROCESS_BYTES, ram_leaving
from roost.probes.machine import host as host_probe
from roost.probes.machine.cgroup import count_oom_kills
from roost.probes.machine.host import free_disk_bytes, peak_rss_bytes, private_bytes, read_host, with_weights_here

GiB = 1024**3
NO_LIMIT_V1 = 9223372036854771712
V2_MOUNT = "31 23 0:26 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


@pytest.fixture(autouse=True)
def system_memory(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Fields(available=100 * GiB))


class Tree:
    """A made-up /proc and /sys under one folder."""

    def __init__(self, folder: Path, cgroup: str, mountinfo: str):
        self.folder = folder
        self.write("proc/self/cgroup", cgroup)
        self.write("proc/self/mountinfo", "23 1 8:1 / / rw - ext4 /dev/root rw\n" + mountinfo)

    def write(self, path, text):
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(str(text))

    def v2(self, group, *, current, high="max", inactive_file=0, active_file=0, shmem=0, **limit):
        stat = f"anon 1\ninactive_file {inactive_file}\nactive_file {active_file}\nshmem {shmem}\n"
        files = {"memory.max": limit.get("max", "max"), "memory.high": high, "memory.current": current}
        for name, value in {**files, "memory.stat": stat}.items():
            self.write(f"sys/fs/cgroup{group}/{name}", value)

    def v1(self, group, *, limit, usage, hierarchical=NO_LIMIT_V1, inactive_file=0):
        stat = (
            f"inactive_file 7\ntotal_inactive_file {inactive_file}\ntotal_active_file 0\n"
            f"hierarchical_memory_limit {hierarchical}\n"
        )
        files = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": usage, "memory.stat": stat}
        for name, value in files.items():
            self.write(f"sys/fs/cgroup/memory{group}/{name}", value)

    def read(self):
        return read_host(proc=self.folder / "proc", root=self.folder)


@pytest.fixture
def unified(tmp_path):
    return Tree(tmp_path, "0::/app/job\n", V2_MOUNT.format(root="/"))


def test_without_control_groups_the_system_decides(tmp_path):
    host = read_host(proc=tmp_path, root=tmp_path)
    assert host.there_bytes == 100 * GiB
    assert host.pinnable_bytes == int(98 * GiB * 0.8)
    assert host.source in ("MemAvailable", "the operating system")


def test_the_tightest_level_wins_even_when_the_leaf_is_unlimited(unified):
    unified.v2("/app/job", current=2 * GiB)
    unified.v2("/app", max=40 * GiB, current=10 * GiB)
    host = unified.read()
    assert host.there_bytes == 30 * GiB
    assert host.source == "cgroup v2 /app memory.max"


def test_limit_and_usage_are_of_the_same_level(unified):
    unified.v2("/app/job", max=20 * GiB, current=1 * GiB)
    unified.v2("/app", max=90 * GiB, current=60 * GiB)
    assert unified.read().there_bytes == 19 * GiB  # neither 20 - 60 nor 90 - 1


def test_the_soft_limit_counts(unified):
    unified.v2("/app/job", max=50 * GiB, high=30 * GiB, current=5 * GiB)
    host = unified.read()
    assert host.there_bytes == 25 * GiB
    assert host.source == "cgroup v2 /app/job memory.high"


def test_cached_files_are_given_back_but_shared_memory_is_not(unified):
    unified.v2("/app/job", max=70 * GiB, current=69 * GiB, inactive_file=20 * GiB, active_file=30 * GiB, shmem=9 * GiB)
    assert unified.read().there_bytes == 51 * GiB


def test_cache_beyond_the_usage_never_lifts_the_limit(unified):
    unified.v2("/app/job", max=10 * GiB, current=GiB, inactive_file=5 * GiB)
    assert unified.read().there_bytes == 10 * GiB


def test_an_exceeded_limit_leaves_nothing_rather_than_less(unified):
    unified.v2("/app/job", max=10 * GiB, current=12 * GiB)
    host = unified.read()
    assert (host.there_bytes, host.available_bytes, host.reserved_bytes) == (0, 0, 0)


def test_a_generous_limit_leaves_the_system_in_charge(unified):
    unified.v2("/app/job", max=500 * GiB, current=GiB)
    assert unified.read().there_bytes == 100 * GiB


def test_version_1_reads_totals_of_the_whole_subtree(tmp_path):
    tree = Tree(tmp_path, "9:pids:/\n4:cpu,memory:/docker/x\n", V1_MOUNT.format(root="/"))
    tree.v1("/docker/x", limit=16 * GiB, usage=12 * GiB, inactive_file=4 * GiB)
    tree.v1("/docker", limit=NO_LIMIT_V1, usage=50 * GiB)
    host = tree.read()
    assert host.there_bytes == 8 * GiB
    assert host.source == "cgroup v1 /docker/x memory.limit_in_bytes"


def test_version_1_without_a_limit_means_none(tmp_path):
    tree = Tree(tmp_path, "4:memory:/\n", V1_MOUNT.format(root="/"))
    tree.v1("", limit=NO_LIMIT_V1, usage=50 * GiB)
    assert tree.read().there_bytes == 100 * GiB


def test_a_limit_of_an_ancestor_out_of_sight_counts(tmp_path):
    tree = Tree(tmp_path, "4:memory:/docker/x\n", V1_MOUNT.format(root="/docker/x"))
    tree.v1("", limit=NO_LIMIT_V1, usage=GiB, hierarchical=8 * GiB)
    host = tree.read()
    assert host.there_bytes == 7 * GiB
    assert host.source == "cgroup v1 / hierarchical_memory_limit"


def test_a_hybrid_system_is_bounded_by_both_versions(tmp_path):
    unified = V2_MOUNT.format(root="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    tree = Tree(tmp_path, "4:memory:/job\n0::/job\n", V1_MOUNT.format(root="/") + unified)
    tree.v1("/job", limit=30 * GiB, usage=0)
    tree.v2("/unified/job", max=20 * GiB, current=0)
    assert tree.read().source == "cgroup v2 /job memory.max"
    tree.v1("/job", limit=10 * GiB, usage=0)
    assert tree.read().source == "cgroup v1 /job memory.limit_in_bytes"


@pytest.mark.parametrize("group", ["/docker/not-mounted-here", "/../../other", "/"])
def test_a_group_outside_the_namespace_falls_back_to_what_is_mounted(tmp_path, group):
    tree = Tree(tmp_path, f"0::{group}\n", V2_MOUNT.format(root="/"))
    tree.v2("", max=12 * GiB, current=2 * GiB)
    tree.v2("/other", max=GiB, current=0)  # of the same name, but not the group of this process
    assert tree.read().there_bytes == 10 * GiB


def test_a_mount_point_with_a_blank_is_found(tmp_path):
    mount = V2_MOUNT.format(root="/").replace("/sys/fs/cgroup", "/my\\040groups")
    tree = Tree(tmp_path, "0::/\n", mount)
    tree.write("my groups/memory.max", 5 * GiB)
    tree.write("my groups/memory.current", GiB)
    assert tree.read().there_bytes == 4 * GiB


def test_broken_files_are_no_limit(unified):
    unified.write("proc/self/cgroup", "nonsense\n0::/app/job\n::\n")
    unified.write("proc/self/mountinfo", "short\n - \n" + V2_MOUNT.format(root="/"))
    unified.v2("/app/job", max="-3", current="many")
    unified.v2("/app", max=20 * GiB, current=0)
    unified.write("sys/fs/cgroup/app/memory.stat", "inactive_file lots\n\nfile\n")
    assert unified.read().there_bytes == 20 * GiB


def test_of_what_is_found_the_process_needs_what_it_has_not_taken_yet(unified):
    host = unified.read()
    assert (host.available_bytes, host.system_bytes, host.process_bytes) == (98 * GiB, 0, 2 * GiB)
    unified.write("proc/self/status", f"RssAnon:\t{768 * 1024} kB\nRssShmem:\t{256 * 1024} kB\n")
    assert (unified.read().available_bytes, unified.read().process_bytes) == (99 * GiB, GiB)
    unified.write("proc/self/status", f"RssAnon:\t{5 * 1024**2} kB\n")
    assert (unified.read().available_bytes, unified.read().process_bytes) == (100 * GiB, 0)


@pytest.mark.parametrize(
    ("ram_gib", "system_gib", "left_gib"),
    [(8, 2, 4), (25, 2, 21), (50, 4, 44), (100, 8, 90)],
)
def test_of_a_machines_memory_the_system_and_the_process_take_theirs(unified, ram_gib, system_gib, left_gib):
    unified.v2("/app/job", max=4 * GiB, current=0)  # says nothing of what was typed
    host = read_host(ram_gib * GiB, proc=unified.folder / "proc", root=unified.folder)
    assert (host.there_bytes, host.system_bytes, host.process_bytes) == (ram_gib * GiB, system_gib * GiB, 2 * GiB)
    assert host.available_bytes == left_gib * GiB
    assert host.pinnable_bytes == int(left_gib * GiB * 0.8)
    assert (host.source, host.ram_typed) == ("--ram", True)
    emulated = read_host(ram_gib * GiB, device_kind="emulated", proc=unified.folder / "proc", root=unified.folder)
    assert emulated.available_bytes - host.available_bytes == 2 * GiB - 700 * 1024**2  # no driver, no kernels


@pytest.mark.parametrize("left_bytes", [1, 800 * 1024, 20 * GiB, 22 * GiB, 90 * GiB + 1])
def test_the_memory_that_leaves_so_much_is_the_least_that_does(left_bytes):
    ram_bytes = ram_leaving(left_bytes, PROCESS_BYTES["cuda"])
    assert read_host(ram_bytes).available_bytes >= left_bytes
    assert read_host(ram_bytes - 2).available_bytes < left_bytes


def test_weights_that_are_here_count_as_available_and_not_as_the_process(monkeypatch):
    monkeypatch.setattr(host_probe, "private_bytes", lambda *_: 13 * GiB)
    found = with_weights_here(read_host(), "cuda", 12 * GiB)
    assert (found.there_bytes, found.process_bytes, found.available_bytes) == (112 * GiB, GiB, 111 * GiB)
    typed = with_weights_here(read_host(50 * GiB), "cuda", 12 * GiB)
    assert (typed.there_bytes, typed.process_bytes, typed.ram_typed) == (50 * GiB, 2 * GiB, True)
    busy = with_weights_here(read_host(50 * GiB), "cuda", 6 * GiB)  # 7 GiB of something else
    assert (busy.process_bytes, busy.available_bytes) == (7 * GiB, 39 * GiB)
    assert busy.pinnable_bytes <= busy.available_bytes


@pytest.mark.parametrize(("pinned_max", "pinnable"), [(8 * GiB, 8 * GiB), (0, 0), (200 * GiB, 90 * GiB)])
def test_pinned_max_replaces_the_share_but_never_exceeds_the_memory(pinned_max, pinnable):
    host = read_host(100 * GiB, pinned_max)
    assert host.pinnable_bytes == pinnable
    assert host.source == "--ram, --pinned-max"


def test_disk_room_of_a_path_to_be_made_is_that_of_its_nearest_parent(tmp_path):
    room = free_disk_bytes(tmp_path / "not" / "yet" / "here.mp4")
    assert room > 0
    assert room == pytest.approx(free_disk_bytes(tmp_path), rel=0.05)


def test_kills_for_memory_are_those_of_the_own_group_in_each_version(unified, tmp_path):
    assert count_oom_kills(unified.folder / "proc", unified.folder) is None
    unified.v2("/app/job", current=1)
    unified.write("sys/fs/cgroup/app/job/memory.events", "low 0\nhigh 5\nmax 7\noom 2\noom_kill 2\n")
    unified.write("sys/fs/cgroup/app/memory.events", "oom_kill 9\n")
    assert count_oom_kills(unified.folder / "proc", unified.folder) == 2
    old = Tree(tmp_path / "old", "4:memory:/job\n", V1_MOUNT.format(root="/"))
    old.write("sys/fs/cgroup/memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert count_oom_kills(old.folder / "proc", old.folder) == 3


def test_the_peak_of_this_process_is_what_the_kernel_says(tmp_path):
    (tmp_path / "self").mkdir()
    assert peak_rss_bytes(tmp_path) is None
    (tmp_path / "self/status").write_text("Name:\tpython\nVmPeak:\t 99 kB\nVmHWM:\t    2048 kB\n")
    assert peak_rss_bytes(tmp_path) == 2048 * 1024
    assert private_bytes(tmp_path) is None
    (tmp_path / "self/status").write_text("RssAnon:\t 10 kB\nRssFile:\t 99 kB\nRssShmem:\t 2 kB\n")
    assert private_bytes(tmp_path) == 12 * 1024
