"""10,000 specifications, a valid one changed at random: each is refused by the API server, or the
operator makes children or a condition of it. Neither may fail on any.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pretrain_llm.contract import config
from pretrain_operator import conditions
from pretrain_operator.api.parse import run_from_object
from pretrain_operator.observed import ObjectKey, Observed
from pretrain_operator.plan import plan
from tests.cluster import ControlPlane
from tests.unit.runs import demo_body, script_body
from tests.unit.world import SETTINGS, START

from . import crd_client

NAMESPACE = "crd-fuzz"
SPECS = 10_000
SEED = 3
THREADS = 4

_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    3,
    7,
    64,
    2**31,
    2**63 - 1,
    2**63,
    2**70,
    -(2**63),
    0.5,
    -0.0,
    1e-320,
    1e308,
    3.0,
    "",
    "a",
    "0",
    "last",
    "export",
    "a.b",
    "../../etc",
    "s3://bucket/x",
    "x" * 64,
    "x" * 5000,
    "ünïcödé ☃ 𝔘",
    "\u0000",
    "\u202e\u200b",
    "{{ .Values }}",
    "$(HOME)",
    [],
    [None],
    [1, "a"],
    ["a"] * 200,
    {},
    {"a": {"b": [1]}},
    {"name": "a"},
    [{"name": "a", "path": "a"}, {"name": "a", "path": "b"}],
    [{"name": "dpo", "steps": 1}] * 3,
    [{"name": "n", "value": "v"}],
    {str(i): "v" for i in range(50)},
    {"image": "a:1", "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]},
    {"resources": {"limits": {"cpu": 2, "memory": "1Gi"}}},
    {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
    {"create": {"size": "1Ti"}, "claimName": "c"},
    {"tensorParallel": 2},
    {"dataParallelReplicate": 2, "dataParallelShard": 1},
    {"maxInfrastructureFaults": 0, "maxApplicationFaults": 0},
)
_EXTRA_FIELDS = ("create", "extra", "__proto__", "template", "path", "numKVHeads", "tokens", "ünï")


def specifications(count: int, seed: int) -> Iterator[dict[str, Any]]:
    source = random.Random(seed)
    for number in range(count):
        body = script_body() if source.random() < 0.1 else demo_body()
        body["metadata"] = {"name": f"fuzz-{number}", "namespace": NAMESPACE}
        body["spec"]["parallelism"] = {"dataParallelShard": -1 if "script" in body["spec"] else 2}
        body["spec"]["recovery"] = {"maxApplicationFaults": 3}
        for _ in range(source.choice((1, 1, 1, 2, 3))):
            _mutate(body["spec"], source)
        if source.random() < 0.02:
            body["metadata"]["name"] = source.choice(["a" * 41, "a" * 63, "a.b", "1a", "a" * 40])
        yield body


def _mutate(spec: dict[str, Any], source: random.Random) -> None:
    places = list(_places(spec))
    if not places:
        return
    parent, key = source.choice(places)
    old = parent[key]
    kind = source.random()
    if kind < 0.35 and isinstance(old, int | float) and not isinstance(old, bool):
        factor = source.choice((0, -1, 0.5, 2, 3, 10, 1e6))
        parent[key] = source.choice((old + 1, old - 1, type(old)(old * factor)))
    elif kind < 0.5:
        del parent[key]
    elif kind < 0.6 and isinstance(parent, dict):
        parent[source.choice(_EXTRA_FIELDS)] = copy.deepcopy(source.choice(_VALUES))
    elif kind < 0.7 and isinstance(old, list):
        parent[key] = old * source.choice((2, 3, 100))
    else:
        parent[key] = copy.deepcopy(source.choice(_VALUES))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything below."""
    if isinstance(value, dict):
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    for key, item in items:
        yield value, key
        yield from _places(item)


@pytest.fixture(scope="module")
def served(control_plane: ControlPlane) -> ControlPlane:
    crd_client.install(control_plane)
    control_plane.kubectl("create", "namespace", NAMESPACE)
    return control_plane


def test_fuzzed_specs_are_refused_or_planned(served: ControlPlane):
    parts = [list(specifications(SPECS, SEED))[start::THREADS] for start in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = sum(pool.map(lambda part: _outcomes(served, part), parts), Counter())
    assert sum(outcomes.values()) == SPECS
    # The fuzz is worth something only where both sides are met often.
    assert outcomes["refused"] > SPECS // 10
    assert outcomes["planned"] > SPECS // 10
    print(dict(outcomes))


def _outcomes(served: ControlPlane, bodies: list[dict[str, Any]]) -> Counter[str]:
    with crd_client.client(served, NAMESPACE) as client:
        return Counter(_outcome(client, body) for body in bodies)


def _outcome(client: crd_client.RunClient, body: dict[str, Any]) -> str:
    code, answer = client.create(body)
    if code >= 400:
        assert code in (400, 422), f"{code}: {answer}\n{json.dumps(body)}"
        assert answer["message"]
        return "refused"
    run = run_from_object(answer)
    assert run.spec is not None, f"the CRD accepts what the operator cannot read: {run.spec_error}"
    name = run.spec.storage.claim_name
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": name}}
    observed = Observed(START, {ObjectKey("PersistentVolumeClaim", name): claim})
    decided = plan(run, observed, SETTINGS)
    state = conditions.state(decided.status)
    assert state is not None
    if state == conditions.INVALID_SPEC:
        return "told"
    json.dumps(decided.status.model_dump(mode="json"), allow_nan=False)
    json.dumps(decided.apply, allow_nan=False)
    maps = [item for item in decided.apply if item["kind"] == "ConfigMap"]
    assert maps or run.spec.suspend, f"nothing planned in state {state}: {json.dumps(body)}"
    for item in maps:
        assert config.parsed(item["data"]["run.json"]).run == run.name
    return "planned"
