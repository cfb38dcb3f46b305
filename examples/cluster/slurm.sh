#!/bin/sh
# An evaluation as a Slurm job array: one shard per task, any number of nodes that share a folder.
#   job=$(sbatch --parsable --array=1-16 slurm.sh runs/ppo --policy openvla-ppo --suite vision)
#   sbatch --dependency=afterany:$job --wrap 'vgb merge runs/ppo/shard-* --fresh --out runs/ppo/merged'
# The same sbatch line again runs only what is missing. Time, partition and account: as your cluster wants them.
#SBATCH --job-name=vgb
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --output=%x-%A-%a.txt
set -eu
[ $# -ge 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$1
shift
: "${VGB:=vgb}" "${SLURM_ARRAY_TASK_ID:?start this with sbatch --array=1-N}"
number=$((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-1} + 1))
exec $VGB eval "$@" --shard "$number/${SLURM_ARRAY_TASK_COUNT:-1}" \
  --workers "${SLURM_CPUS_PER_TASK:-1}" --out "$out/shard-$number"
