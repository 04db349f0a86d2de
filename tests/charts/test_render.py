"""What the chart renders, for the values that people set."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from hack.local_values import registry_values
from pretrain_operator.__main__ import _parser
from pretrain_operator.conditions import STOPPED, WAITING
from pretrain_operator.refusals import CONDITION, REASON
from pretrain_operator.settings import Settings
from tests.cluster import toolchain
from tests.integration.harness import CHART, ROOT, Object, helm_template

MONITORS = ("--set=metrics.serviceMonitor.enabled=true", "--set=metrics.podMonitor.enabled=true")


def kinds(objects: list[Object]) -> set[str]:
    return {body["kind"] for body in objects}


def one(objects: list[Object], kind: str) -> Object:
    (found,) = [body for body in objects if body["kind"] == kind]
    return found


def settings(*arguments: str) -> Settings:
    document = one(helm_template(*arguments), "ConfigMap")["data"]["settings.yaml"]
    return Settings.model_validate(yaml.safe_load(document))


def refusal(*arguments: str) -> str:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        helm_template(*arguments)
    return str(caught.value.stderr)


def test_chart_passes_helms_own_lint() -> None:
    subprocess.run([str(toolchain.helm()), "lint", "--strict", "--quiet", str(CHART)], check=True)


def test_default_values_serve_the_whole_cluster_with_one_operator() -> None:
    objects = helm_template()
    assert "Role" not in kinds(objects)
    assert not {"ServiceMonitor", "PodMonitor"} & kinds(objects)
    deployment = one(objects, "Deployment")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"]["type"] == "Recreate"


def test_deployment_meets_the_restricted_pod_security_standard() -> None:
    pod = one(helm_template(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert {"livenessProbe", "readinessProbe"} <= container.keys()


@pytest.mark.parametrize(
    "arguments",
    [(), ("--set=watchNamespaces={a,b}", "--set=rbac.nodes=false", "--set=log.verbose=true")],
)
def test_arguments_of_the_deployment_are_ones_that_the_operator_takes(
    arguments: tuple[str, ...],
) -> None:
    (container,) = one(helm_template(*arguments), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ]
    options = _parser().parse_args(container["args"])
    assert options.namespace == (["a", "b"] if arguments else [])
    assert options.watch_nodes is not bool(arguments)


def test_watched_namespaces_get_roles_and_nothing_cluster_wide_but_nodes() -> None:
    objects = helm_template("--set=watchNamespaces={a,b}", "--set=rbac.aggregateToUserRoles=false")
    roles = [body for body in objects if body["kind"] == "Role"]
    assert [role["metadata"]["namespace"] for role in roles] == ["a", "b"]
    (rule,) = one(objects, "ClusterRole")["rules"]
    assert rule["resources"] == ["nodes"]


def test_watched_namespaces_without_nodes_need_no_cluster_role() -> None:
    objects = helm_template(
        "--set=watchNamespaces={a}",
        "--set=rbac.nodes=false",
        "--set=rbac.aggregateToUserRoles=false",
    )
    assert not {"ClusterRole", "ClusterRoleBinding"} & kinds(objects)


def test_all_switches_off_leave_the_operator_alone() -> None:
    objects = helm_template(
        "--set=crds.enabled=false",
        "--set=rbac.create=false",
        "--set=rbac.aggregateToUserRoles=false",
        "--set=serviceAccount.create=false",
        "--set=serviceAccount.name=mine",
    )
    assert kinds(objects) == {"ConfigMap", "Deployment", "Service"}
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "mine"


def test_service_account_that_is_not_made_must_be_named() -> None:
    assert "serviceAccount.name" in refusal("--set=serviceAccount.create=false")


@pytest.mark.parametrize(
    ("marks", "verbs"),
    [
        ("None", ["list", "watch"]),
        ("Label", ["list", "watch", "patch"]),
        ("Taint", ["list", "watch", "patch"]),
    ],
)
def test_nodes_may_be_patched_only_where_they_are_marked(marks: str, verbs: list[str]) -> None:
    for more in ((), ("--set=watchNamespaces={a}", "--set=rbac.aggregateToUserRoles=false")):
        objects = helm_template(f"--set=settings.nodeExclusion.marks={marks}", *more)
        rules = [rule for body in objects for rule in body.get("rules", ())]
        (rule,) = [rule for rule in rules if "nodes" in rule["resources"]]
        assert rule["verbs"] == verbs


def test_nodes_that_are_not_read_cannot_be_marked() -> None:
    words = refusal("--set=rbac.nodes=false", "--set=settings.nodeExclusion.marks=Label")
    assert "nodeExclusion.marks" in words


def test_monitors_find_the_operator_and_the_coordinators() -> None:
    objects = helm_template(*MONITORS)
    service = next(body for body in objects if body["kind"] == "Service")
    wanted = one(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    selector = one(objects, "PodMonitor")["spec"]["selector"]["matchLabels"]
    assert selector == {"pretrain.dev/component": "coordinator"}


@pytest.mark.parametrize(("keep", "policy"), [("true", "keep"), ("false", None)])
def test_crd_is_kept_at_uninstall_if_asked(keep: str, policy: str | None) -> None:
    crd = one(helm_template(f"--set=crds.keep={keep}"), "CustomResourceDefinition")
    assert crd["metadata"]["annotations"].get("helm.sh/resource-policy") == policy


def test_settings_have_an_image_for_each_component_and_take_what_is_given() -> None:
    found = settings(
        "--set=image.prefix=example.test/x,image.tag=v2",
        "--set=settings.templates.serving.image=other:1",
        "--set=settings.templates.data.nodeSelector.disk=fast",
        "--set=image.pullSecrets={mine}",
    )
    assert found.templates["training"].image == "example.test/x/trainer:v2"
    assert found.templates["serving"].image == "other:1"
    assert found.templates["data"].node_selector == {"disk": "fast"}
    assert found.templates["data"].image == "example.test/x/data:v2"
    assert found.templates["postTraining"].image_pull_secrets == ("mine",)


def test_default_settings_of_the_chart_are_those_of_the_operator() -> None:
    ours = Settings().model_dump(exclude={"templates"})
    assert settings().model_dump(exclude={"templates"}) == ours


def test_schema_knows_every_setting_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    described = schema["properties"]["settings"]["properties"]
    assert set(described) == {field.alias for field in Settings.model_fields.values()}


def test_change_of_a_setting_rolls_the_operator() -> None:
    def checksum(*arguments: str) -> Any:
        template = one(helm_template(*arguments), "Deployment")["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/settings"]

    assert checksum() == checksum()
    assert checksum("--set=settings.unreachableSeconds=9") != checksum()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--set=settings.pollIntervalSecond=2", "pollIntervalSecond"),
        ("--set=settings.pollIntervalSeconds=0", "pollIntervalSeconds"),
        ("--set=settings.templates.trainer.image=x", "trainer"),
        ("--set=log.format=xml", "log.format"),
        ("--set=metrics.port=99999", "metrics.port"),
        ("--set=watchNamespaces={Upper}", "watchNamespaces"),
        ("--set=replicas=2", "replicas"),
        ("--set=resources.request.cpu=1", "request"),
    ],
)
def test_schema_rejects_nonsense_and_names_the_value(argument: str, words: str) -> None:
    assert words in refusal(argument)


def test_values_of_a_cluster_without_a_registry_fit_the_schema(tmp_path: Any) -> None:
    values = subprocess.run(
        ["python3", str(ROOT / "hack" / "local_values.py"), "--sources", str(tmp_path)]
        + [
            f"--{name}-env={_environment(tmp_path / name)}"
            for name in ("operator", "train", "serve")
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    file = tmp_path / "values.json"
    file.write_text(values)
    found = settings(f"--values={file}")
    assert {template.image for template in found.templates.values()} == {"pretrain.local/host:1"}
    mounted = [mount["mountPath"] for mount in found.templates["serving"].volume_mounts]
    assert mounted == ["/usr", "/opt/python", str(tmp_path / "serve"), str(tmp_path)]
    assert "--enforce-eager" in found.serving_arguments


def test_values_of_the_demo_on_a_registry_serve_on_cpus(tmp_path: Any) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(registry_values("registry.test/pretrain")))
    found = settings(f"--values={file}")
    images = {name: template.image for name, template in found.templates.items()}
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert images["training"] == f"registry.test/pretrain/trainer:{version}"
    assert images["serving"] == f"registry.test/pretrain/serve-cpu:{version}"
    assert "--enforce-eager" in found.serving_arguments


def _environment(folder: Any) -> Any:
    folder.mkdir()
    (folder / "pyvenv.cfg").write_text("home = /opt/python/bin\nimplementation = CPython\n")
    return folder


def test_operations_page_names_every_reason_that_needs_somebody() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert all(f"`{reason}`" in page for reason in (*STOPPED, *WAITING, CONDITION, REASON))
