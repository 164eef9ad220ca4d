#!/usr/bin/env bash
# Builds the image and runs it, with a real container engine and without an image registry: the base image is made from
# Debian's packages. For a Debian machine, as root:
#   apt-get install --no-install-recommends buildah podman runc mmdebstrap curl
#   deploy/container/trial.sh MODELS FAMILY     # a model repository, and a family of it that takes one FP32 row `x` of 4
set -euo pipefail
models=$(realpath "$1") family=$2
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
engine() { podman --runtime runc --root "$work/store" --runroot "$work/run" --cgroup-manager cgroupfs --events-backend file "$@"; }
clean() {
    engine logs gateway 2>&1 | tail -5
    engine rm --force --time 0 gateway >/dev/null 2>&1 || true
    umount --recursive "$work/store/overlay" 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT
build() { buildah --root "$work/store" --runroot "$work/run" build --isolation chroot --network host --format docker "$@"; }

mmdebstrap --quiet --variant=minbase --include=python3-venv,ca-certificates bookworm "$work/base.tar"
printf 'FROM scratch\nADD base.tar /\n' >"$work/Base"
build --quiet -t base -f "$work/Base" "$work"
# The machine's own certificates, in case its package index has one that Debian does not know.
build --quiet --build-arg PYTHON=localhost/base --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --env PIP_CERT=/etc/ssl/certs/ca-certificates.crt -t pareto-gateway -f deploy/container/Containerfile .
engine images

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
engine run --detach --name gateway --network host --memory 1g --cpus 1 --read-only --read-only-tmpfs=false --tmpfs /tmp \
    --cap-drop all --security-opt no-new-privileges --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --no-healthcheck \
    --volume "$models:/models:ro" --env PARETO_HOST=127.0.0.1 --env "PARETO_PORT=$port" --env PARETO_MEMORY_BUDGET=60% \
    localhost/pareto-gateway
curl --silent --fail --retry 60 --retry-all-errors --retry-delay 1 "http://127.0.0.1:$port/v2/health/ready"
echo
curl --silent --show-error --fail "http://127.0.0.1:$port/v2/models/$family/infer" \
    --data '{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 0, 0, 0]}]}'
echo
curl --silent "http://127.0.0.1:$port/metrics" | grep '^pareto_memory_'
engine exec gateway sh -c 'id; touch /written 2>&1 || true'
engine top gateway pid user args
engine stop --time 40 gateway
[ "$(engine inspect --format '{{.State.ExitCode}}' gateway)" = 0 ]
echo 'it has ended with 0'
