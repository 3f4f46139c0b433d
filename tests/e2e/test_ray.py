"""`ccrl generate --ray` on a local cluster of two nodes, one of which is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from ccrl_cli.errors import PartialError, PreconditionError
from ccrl_cli.generators.base import Generated, GenerationRequest
from ccrl_cli.generators.registry import GeneratorRecipe
from ccrl_cli.store.completions import CompletionStore
from lazily import lazy, needs

ray = lazy("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="clusters are POSIX"),
    needs("ray"),
]

COUNT = 160
RUN = (sys.executable, "-m", "ccrl_cli", "generate")
PROFILE = """
[run]
name = "cluster"
[model]
name = "org/any"
[data.source]
name = "sample:newswire"
[data.target]
path = "inputs.jsonl"
labels = ["craft", "planet"]
[generation]
backend = "mock"
num_completions = 2
batch_size = 6
mock_seconds = 0.1
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rows = [
        {
            "text": f"Probe {number} left Earth .",
            "entities": [{"text": f"Probe {number}", "type": "craft"}],
        }
        for number in range(COUNT)
    ]
    (tmp_path / "inputs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ccrl.toml").write_text(PROFILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000}
    )
    yield made
    ray.shutdown()
    made.shutdown()


def start(cluster, *words):
    command = [*RUN, "--ray", cluster.address, *words]
    return subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )


def stored(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(path, count, process, seconds=90.0):
    end = time.monotonic() + seconds
    while stored(path) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{stored(path)} of {count} records"
        time.sleep(0.05)


def test_a_killed_node_costs_only_what_was_in_flight(folder, cluster):
    node = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    path = folder / "runs/cluster/completions.jsonl"
    process = start(cluster, "--ray-workers", "2")
    wait_for(path, 24, process)
    before = stored(path)
    cluster.remove_node(node, allow_graceful=False)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert before < COUNT
    result = json.loads(out)["result"]
    assert result["generated"] == {"org/any": COUNT}
    # every input once, none drawn again after it had been stored
    ids = Counter(item.input_id for item in CompletionStore(path).records())
    assert len(ids) == stored(path) == COUNT
    assert set(ids.values()) == {1}
    # the same answers as without a cluster
    alone = subprocess.run(
        [*RUN, "--store", "alone.jsonl", "--set", "generation.mock_seconds=0", "-q"],
        check=False,
    )
    assert alone.returncode == 0
    here = {r.input_id: r.completions for r in CompletionStore(folder / "alone.jsonl").records()}
    assert {r.input_id: r.completions for r in CompletionStore(path).records()} == here


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_driver_keeps_what_arrived_and_goes_on(folder, cluster, number):
    path = folder / "runs/cluster/completions.jsonl"
    process = start(cluster)
    wait_for(path, 10, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out)["status"] == "interrupted"
    kept = path.read_bytes()
    assert 9 <= kept.count(b"\n") < COUNT  # the tenth may have been in flight
    again = start(cluster, "--resume", "--set", "generation.mock_seconds=0")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert path.read_bytes().startswith(kept)
    assert stored(path) == COUNT


class Dying:
    """A backend whose process dies at one input."""

    name = "dying"
    special_tokens = ("<s>",)
    details = {"a": "b"}  # noqa: RUF012

    def __init__(self, fatal):
        self.fatal = fatal

    def generate(self, requests):
        for request in requests:
            if request.input_id == self.fatal:
                os._exit(1)
            yield Generated(request.input_id, (), 0.0)

    def close(self):
        pass


class Recipe(GeneratorRecipe):
    """Builds what it is given; sent by value, so the workers need not import this file."""

    def build(self):
        return self.options["make"](*self.arguments)


def pool(cluster, make, *arguments, workers=1):
    from ccrl_cli.generators.ray import RayGenerator, RaySettings

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    settings = RaySettings(cluster.address, workers, 1.0, None, 4)
    return RayGenerator(Recipe("test", arguments, {"make": make}), settings)


def requests(count):
    return [GenerationRequest(str(n), (({"content": "x" * n},),), (0,)) for n in range(count)]


def test_an_input_that_kills_its_workers_ends_the_run_after_three(cluster, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    generator = pool(cluster, Dying, "1")
    try:
        assert generator.special_tokens == ("<s>",)
        assert generator.details == {"a": "b", "ray": ray.__version__}
        found = []
        with pytest.raises(PartialError, match="died 3 times") as caught:
            found.extend(item.input_id for item in generator.generate(requests(12)))
        assert "--resume" in caught.value.hint
        assert generator.lost == 3
    finally:
        generator.close()


def _this_module():
    import types

    module = types.ModuleType(__name__)
    module.__dict__.update(globals())
    return module


def refuse(*arguments):
    raise PreconditionError("the model folder is not on this node", hint="copy it")


def test_what_workers_raise_reaches_the_driver(cluster, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    with pytest.raises(PreconditionError, match="model folder is not on this node"):
        pool(cluster, refuse)


def test_a_cluster_that_is_not_there(folder):
    process = subprocess.run(
        [*RUN, "--ray", "127.0.0.1:1", "--json"],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert process.returncode == 3, process.stderr
    assert "cannot be joined" in json.loads(process.stdout)["error"]["message"]
