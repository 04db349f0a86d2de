"""One local cluster for all end-to-end tests, with the operator installed and the corpus loaded."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from hack.demo import place, scenario
from tests.cluster import Cluster

from . import evidence

CORPUS = scenario.ROOT / "build" / "corpus"


@pytest.fixture(scope="session")
def where() -> Iterator[place.Place]:
    folder = scenario.ROOT / "build" / "e2e"
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster("e2e", folder / "cluster")
    with place.local(cluster, folder / "values.yaml", nodes=3) as found:
        scenario.install_operator(found.kube, found.values)
        scenario.load_corpus(found.kube, scenario.manifest(scenario.RECIPE), CORPUS)
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the cluster had to say."""
    report = yield
    found = getattr(item, "funcargs", {}).get("where")
    if report.failed and found:
        report.sections.append(("the cluster", evidence.gathered(found)))
    return report
