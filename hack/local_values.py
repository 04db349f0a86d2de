"""Values of the chart for a cluster without a registry: pods run from this machine's own files.

    python3 hack/local_values.py > values.json && helm install ... --values values.json

Every pod uses one empty image and sees, read-only and at their own paths, /usr, the interpreter,
one Python environment and this checkout. Standard library only. Needs the environments of
`hack/envs.sh`; see docs/testing.md for what such a cluster does and does not prove.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

IMAGE = "pretrain.local/host:1"
_DEFAULT_IMAGE_PREFIX = "ghcr.io/pretrain-dev"  # the chart's
ROOT = Path(__file__).resolve().parents[1]

_ENVIRONMENTS = {  # of each component
    "coordinator": "train",
    "data": "train",
    "training": "train",
    "export": "train",
    "postTraining": "train",
    "serving": "serve",
}
# vLLM on a small CPU machine: little memory for the cache, no pinned cores, nothing from outside.
_SERVING_ARGUMENTS = ("--dtype", "float32", "--enforce-eager", "--max-num-seqs", "4")
_SERVING_ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


def values(environments: dict[str, Path], sources: Path = ROOT) -> dict[str, Any]:
    """Chart values; `environments` has the folders of operator, train and serve."""
    operator = _template(environments["operator"], sources, {})
    return {
        "image": {"operator": IMAGE, "pullPolicy": "Never"},
        "extraEnv": operator["env"],
        "extraVolumes": operator["volumes"],
        "extraVolumeMounts": operator["volumeMounts"],
        "log": {"format": "plain"},
        "settings": {
            "servingArguments": list(_SERVING_ARGUMENTS),
            "terminationGraceSeconds": 30,
            "templates": {
                component: _template(
                    environments[name], sources, _SERVING_ENV if name == "serve" else {}
                )
                for component, name in _ENVIRONMENTS.items()
            },
        },
    }


def machine_values() -> dict[str, Any]:
    """Of this checkout and its environments."""
    return values({name: _default(name) for name in ("operator", "train", "serve")})


def registry_values(image_prefix: str | None) -> dict[str, Any]:
    """Values of the chart where there is a registry: its own, but vLLM's build for CPUs."""
    chart = (ROOT / "charts" / "pretrain-operator" / "Chart.yaml").read_text()
    version = re.search(r'^appVersion: "?([^"\n]+)', chart, re.MULTILINE)
    assert version, "Chart.yaml has an appVersion"
    prefix = image_prefix or _DEFAULT_IMAGE_PREFIX
    env = [{"name": name, "value": value} for name, value in _SERVING_ENV.items()]
    image = f"{prefix}/serve-cpu:{version[1]}"
    return {
        "image": {"prefix": prefix},
        "settings": {
            "servingArguments": list(_SERVING_ARGUMENTS),
            "templates": {"serving": {"image": image, "env": env}},
        },
    }


def _template(environment: Path, sources: Path, env: dict[str, str]) -> dict[str, Any]:
    interpreter = _interpreter_prefix(environment)
    mounted = {
        "host-usr": Path("/usr"),
        "host-python": interpreter,
        "host-env": environment,
        "host-sources": sources,
    }
    if interpreter.is_relative_to("/usr"):
        del mounted["host-python"]
    variables = {
        "PATH": f"{environment}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{sources}/operator:{sources}/llm",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": f"{interpreter}/lib",  # the image has no ld.so.cache
        **env,
    }
    return {
        "image": IMAGE,
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "volumes": [
            {"name": name, "hostPath": {"path": str(path), "type": "Directory"}}
            for name, path in mounted.items()
        ],
        "volumeMounts": [
            {"name": name, "mountPath": str(path), "readOnly": True}
            for name, path in mounted.items()
        ],
    }


def _interpreter_prefix(environment: Path) -> Path:
    """Where the interpreter behind a virtual environment is installed."""
    lines = (environment / "pyvenv.cfg").read_text().splitlines()
    home = next(line.partition("=")[2].strip() for line in lines if line.startswith("home"))
    return Path(home).resolve().parent


def _default(name: str) -> Path:
    command = [ROOT / "hack" / "envs.sh", "path", name]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("operator", "train", "serve")
    for name in names:
        parser.add_argument(f"--{name}-env", type=Path, help="default: hack/envs.sh path")
    parser.add_argument("--sources", type=Path, default=ROOT, help="checkout that pods run")
    options = parser.parse_args()
    environments = {name: getattr(options, f"{name}_env") or _default(name) for name in names}
    missing = [str(path) for path in environments.values() if not (path / "pyvenv.cfg").exists()]
    if missing:
        print(f"no environment in {', '.join(missing)}: run hack/envs.sh build", file=sys.stderr)
        return 1
    print(json.dumps(values(environments, options.sources.resolve()), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
