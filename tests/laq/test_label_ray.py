# SPDX-License-Identifier: Apache-2.0
"""`laq label` and `data index` on a Ray cluster of two machines (here: two nodes), one of which dies midway."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from tests.laq.test_label import files
from tests.laq.test_label_processes import living_processes

pytest.importorskip("ray", reason="Ray is not installed: pip install 'lapa_core[ray]'")

NODE_MB = 80
# Ray leaves sockets and pipes of the processes that it ends to the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A head that works on nothing, and two nodes of one CPU each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv(
        "RAY_worker_niceness", "0"
    )  # by default Ray's workers wait for everything else
    monkeypatch.setenv("LAPA_TEST_CLUSTER", str(tmp_path))  # marks its processes
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": NODE_MB * 2**20}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory}
    )
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **memory)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
    assert not living_processes(str(tmp_path))


def test_a_cluster_that_loses_a_node_gives_the_same_bytes(
    label_world, undisturbed, tmp_path, cluster
):
    from lapa_core.data.index import IndexConfig, build_index
    from lapa_core.laq.label import label

    out = tmp_path / "labels"
    left: list[int] = []

    def kill_a_node() -> None:
        while not (out / "labels-00001.parquet").exists():
            time.sleep(0.005)
        victim = next(node for node in cluster.worker_nodes)
        cluster.remove_node(victim, allow_graceful=False)
        left.append(len(list(out.glob("labels-*.parquet"))))

    killer = threading.Thread(target=kill_a_node, daemon=True)
    killer.start()
    label(label_world.config(out, ray=cluster.address))
    killer.join()
    assert left[0] < len(files(undisturbed)) - 1, "the kill came too late to mean anything"
    assert files(out) == files(undisturbed)

    scan = IndexConfig(
        data=label_world.root / "videos",
        out=tmp_path / "index",
        ray=cluster.address,
        progress=False,
    )
    build_index(scan)
    for name in ("index.json", "clips.parquet", "pts.parquet"):
        plain = label_world.root / "index" / name
        assert (tmp_path / "index" / name).read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("given", ["auto", "address", "ray://"])
def test_no_cluster_is_said_at_once(monkeypatch, label_world, tmp_path, given):
    from lapa_core.errors import SetupError
    from lapa_core.laq.label import label

    with (
        socket.socket() as closed
    ):  # bound but not listening: nobody answers, and nobody else takes the port
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        given = {"auto": "auto", "address": address, "ray://": f"ray://{address}"}[given]
        with pytest.raises(SetupError, match=f"no Ray cluster at .*{address}"):
            label(label_world.config(tmp_path / "labels", ray=given))


@pytest.mark.parametrize("given", ["somewhere", "host:", ":6379", "host:port"])
def test_a_wrong_address_is_refused(label_world, tmp_path, given):
    from lapa_core.errors import SetupError
    from lapa_core.laq.label import label

    with pytest.raises(SetupError, match="allowed are auto, local, host:port"):
        label(label_world.config(tmp_path / "labels", ray=given))
