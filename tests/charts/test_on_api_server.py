"""What the chart renders, as a real API server takes it, and what the operator may do with it."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.integration.harness import RELEASE_NAMESPACE, Api, eventually, helm_template

ACCOUNT = f"system:serviceaccount:{RELEASE_NAMESPACE}:pretrain-operator"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (
            "--set=watchNamespaces={default}",
            "--set=extraEnv[0].name=A",
            "--set=extraEnv[0].value=b",
        ),
    ],
    ids=["defaults", "namespaced"],
)
def test_rendered_objects_pass_the_api_servers_dry_run(
    api: Api, arguments: tuple[str, ...]
) -> None:
    text = yaml.safe_dump_all(helm_template(*arguments))
    api.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", stdin=text
    )


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("list", "pretrainruns.pretrain.dev"),
        ("watch", "pretrainruns.pretrain.dev"),
        ("get", "pretrainruns.pretrain.dev"),
        ("update", "pretrainruns.pretrain.dev/status"),
        ("patch", "jobs.batch"),
        ("create", "jobs.batch"),
        ("delete", "jobs.batch"),
        ("watch", "jobs.batch"),
        ("patch", "deployments.apps"),
        ("patch", "services"),
        ("patch", "configmaps"),
        ("create", "pods"),
        ("delete", "pods"),
        ("watch", "pods"),
        ("patch", "pods/status"),
        ("get", "persistentvolumeclaims"),
        ("create", "persistentvolumeclaims"),
        ("create", "events"),
        ("watch", "nodes"),
    ],
)
def test_operator_may(api: Api, verb: str, resource: str) -> None:
    assert allowed(api, verb, resource)


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods/exec"),
        ("get", "pods/log"),
        ("update", "pretrainruns.pretrain.dev"),
        ("delete", "pretrainruns.pretrain.dev"),
        ("delete", "persistentvolumeclaims"),
        ("list", "persistentvolumeclaims"),
        ("patch", "nodes"),
        ("delete", "nodes"),
        ("list", "namespaces"),
        ("create", "serviceaccounts/token"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("list", "customresourcedefinitions.apiextensions.k8s.io"),
    ],
)
def test_operator_may_not(api: Api, verb: str, resource: str) -> None:
    assert not allowed(api, verb, resource)


@pytest.mark.parametrize(
    ("role", "verb", "expected"),
    [("view", "get", True), ("view", "create", False), ("edit", "create", True)],
)
def test_users_with_a_built_in_role_may(api: Api, role: str, verb: str, expected: bool) -> None:
    user = f"{role}-to-{verb}"
    api.kubectl(
        "create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", "default"
    )
    # The built-in roles take in others' rules a moment after these were made.
    if expected:
        resource = "pretrainruns.pretrain.dev"
        eventually(lambda: allowed(api, verb, resource, user), f"right to {verb}", seconds=10)
    else:
        assert not allowed(api, verb, "pretrainruns.pretrain.dev", user)


def allowed(api: Api, verb: str, resource: str, user: str = ACCOUNT) -> bool:
    plain, _, subresource = resource.partition("/")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": {
                "namespace": "default",
                "verb": verb,
                "resource": plain.partition(".")[0],
                "group": plain.partition(".")[2],
                "subresource": subresource,
            },
        },
    }
    answer = api.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(review))
    return bool(json.loads(answer)["status"]["allowed"])
