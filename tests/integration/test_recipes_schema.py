"""Every recipe and its small form, as a real API server takes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hack.recipes import book
from hack.recipes.tiny import tiny
from tests.cluster import ControlPlane

from . import crd_client
from .crd_client import RunClient

NAMESPACE = "recipes"


@pytest.fixture(scope="module")
def runs(control_plane: ControlPlane) -> Iterator[RunClient]:
    crd_client.install(control_plane)
    control_plane.kubectl("create", "namespace", NAMESPACE)
    with crd_client.client(control_plane, NAMESPACE) as client:
        yield client


@pytest.mark.parametrize("name", book.all_names())
def test_recipe_is_accepted_whole_and_small(name: str, runs: RunClient) -> None:
    body = book.body(name)
    small = [] if book.is_script(body) else [tiny(body)]
    for wanted in (body, *small):
        code, answer = runs.create(_here(wanted))
        assert code == 201, answer


def _here(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "namespace": NAMESPACE}}
