#!/usr/bin/env bash
# One training on several nodes: run this on every node, with the same arguments but for --rank.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: scripts/multinode.sh --nodes N --processes P --rank R --master HOST[:PORT] [override ...]

Starts the P processes of one node; run it on each of the N nodes. Overrides are those of `panoptic train`.

  --nodes N        number of nodes
  --processes P    processes per node, one for each GPU
  --rank R         which node this is, 0 to N-1; 0 writes the log, the checkpoints and the pictures
  --master HOST    address of node 0, and a free port of it (29500 unless given)

run= is needed: all nodes name the same folder, on storage that all of them reach.

  scripts/multinode.sh --nodes 2 --processes 4 --rank 0 --master 10.0.0.1 experiment=deeperlab_scenes run=runs/first
  scripts/multinode.sh --nodes 2 --processes 4 --rank 1 --master 10.0.0.1 experiment=deeperlab_scenes run=runs/first
USAGE
}

fail() {
    echo "multinode.sh: $1; see scripts/multinode.sh --help" >&2
    exit 2
}

nodes="" processes="" rank="" master=""
while [[ "${1:-}" == -* ]]; do
    case "$1" in
        -h | --help) usage; exit 0 ;;
        --nodes | --processes | --rank | --master)
            [[ $# -ge 2 ]] || fail "expected a value after $1"
            printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        *) fail "unknown option $1" ;;
    esac
done
for option in nodes processes rank master; do
    [[ -n "${!option}" ]] || fail "expected --$option"
done
for option in nodes processes rank; do
    [[ "${!option}" =~ ^[0-9]+$ ]] || fail "expected a whole number for --$option, got ${!option}"
done
((rank < nodes)) || fail "expected --rank 0 to $((nodes - 1)), got $rank"
[[ " $*" == *" run="* ]] || fail "expected run=, the same folder on all nodes"

port=29500
if [[ "$master" == *:* ]]; then
    port="${master##*:}" master="${master%:*}"
fi
exec torchrun --nnodes "$nodes" --nproc-per-node "$processes" --node-rank "$rank" \
    --master-addr "$master" --master-port "$port" \
    -m panoptic train trainer=ddp trainer.num_nodes="$nodes" trainer.devices="$processes" "$@"
