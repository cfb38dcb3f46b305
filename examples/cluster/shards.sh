#!/bin/sh
# All shards of one evaluation on this machine, one process each, then one log of them.
#   sh shards.sh COUNT OUT OPTIONS_OF_VGB_EVAL...
#   sh shards.sh 4 runs/ppo-vision --policy openvla-ppo --suite vision
# On many machines with a shared folder, start `vgb eval --shard I/COUNT --out OUT/I` on each instead, then merge.
# Give the same command again after a crash: finished episodes are not run again.
set -eu
[ $# -ge 3 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
count=$1 out=$2
shift 2
: "${VGB:=vgb}"

mkdir -p "$out"
running= shards=
for i in $(seq "$count"); do
  $VGB eval "$@" --shard "$i/$count" --workers 1 --out "$out/shard-$i" >"$out/shard-$i.txt" 2>&1 &
  running="$running $!" shards="$shards $out/shard-$i"
done
failed=0
for process in $running; do
  wait "$process" || failed=$?
  [ "$failed" -lt 2 ] || { kill $running 2>/dev/null || true; echo "a shard failed: $out/shard-*.txt say why" >&2; exit "$failed"; }
done
# shellcheck disable=SC2086  # names without spaces, one word each
exec $VGB merge $shards --fresh --out "$out/merged"
