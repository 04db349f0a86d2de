#!/usr/bin/env bash
# Installs the system packages that the local cluster and the Python environments need, on Debian
# and its kin; says nothing and needs no root where all of them are there.
#   hack/system-packages.sh          install what is missing
#   hack/system-packages.sh check    only name it; exit 1 if there is any
set -euo pipefail

# What has to be there, and the package that brings it. By file, not by package: a containerd from
# elsewhere does as well, and Debian's would push it out.
needs() {
  cat <<'TABLE'
containerd containerd
ctr containerd
runc runc
/usr/lib/cni/ptp:/usr/libexec/cni/ptp:/opt/cni/bin/ptp containernetworking-plugins
nft nftables
iptables iptables
conntrack conntrack
socat socat
ip iproute2
openssl openssl
ps procps
unshare util-linux
setsid util-linux
git git
make make
curl curl
/etc/ssl/certs/ca-certificates.crt:/etc/ssl/cert.pem:/etc/pki/tls/certs/ca-bundle.crt ca-certificates
TABLE
}

present() {
  local alternative
  for alternative in ${1//:/ }; do
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$alternative" >/dev/null && return
    [ -f "$alternative" ] && return
  done
  return 1
}

missing() {
  local need package
  {
    while read -r need package; do
      present "$need" || echo "$package"
    done < <(needs)
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  } | sort -u
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi
}

apt() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# Debian starts a service as soon as it is installed; the nodes bring their own containerd.
without_starting_services() {
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap "as_root rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
  fi
  "$@"
}

install() {
  # The package lists of a fresh image are empty, and old ones name files that are gone.
  apt install -y --no-install-recommends "$@" >/dev/null 2>&1 && return
  # apt's lock on its lists, unlike dpkg's, has no timeout of its own.
  local attempt
  for attempt in 1 2 3 4 5 6; do
    apt update && break
    [ "$attempt" = 6 ] && { echo "apt-get update failed 6 times" >&2; return 1; }
    sleep 10
  done
  apt install -y --no-install-recommends "$@" >/dev/null
}

mapfile -t packages < <(missing)
[ ${#packages[@]} = 0 ] && exit
if [ "${1:-}" = check ]; then
  echo "missing system packages: ${packages[*]}"
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  echo "no apt-get here: install what Debian calls ${packages[*]}" >&2
  exit 1
fi
echo "installing system packages: ${packages[*]}" >&2
without_starting_services install "${packages[@]}"
mapfile -t packages < <(missing)
[ ${#packages[@]} = 0 ] || { echo "still missing: ${packages[*]}" >&2; exit 1; }
