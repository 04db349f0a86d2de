"""Each Dockerfile installs one extra that exists, and nothing runs as root."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.integration.harness import ROOT

IMAGES = {
    "operator": "operator",
    "trainer": "train",
    "data": "data",
    "post-train": "post-train",
    "serve": "serve",
    "serve-cpu": "serve-cpu",
}


def dockerfile(image: str) -> str:
    return (ROOT / "images" / image / "Dockerfile").read_text()


def test_every_image_has_a_row_here() -> None:
    assert {path.parent.name for path in (ROOT / "images").glob("*/Dockerfile")} == set(IMAGES)


@pytest.mark.parametrize(("image", "extra"), IMAGES.items())
def test_image_installs_exactly_one_extra_of_pyproject(image: str, extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert re.findall(r'"\.\[(.+)\]"', dockerfile(image)) == [extra]
    assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("image", IMAGES)
def test_image_runs_as_the_projects_user(image: str) -> None:
    users = re.findall(r"^USER (.+)$", dockerfile(image), re.MULTILINE)
    assert users[-1] == "65532:65532"


@pytest.mark.parametrize("image", IMAGES)
def test_image_copies_only_what_is_there(image: str) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile(image), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert sources
    assert all((ROOT / source).exists() for source in sources)


def test_serving_image_has_the_version_that_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = project["optional-dependencies"]["serve"]
    (tag,) = re.findall(r"^FROM vllm/vllm-openai:v(\d+\.\d+)\.\d+$", dockerfile("serve"), re.M)
    assert f">={tag}," in wanted
