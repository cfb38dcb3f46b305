#!/bin/sh
# A Ray cluster within a Slurm job, and a vgb command on it: learning from reward, or an evaluation.
#   sbatch --nodes=4 ray.sh train ppo --recipe openvla-ppo --out runs/ppo
#   sbatch --nodes=4 ray.sh eval --policy openvla-ppo --suite vision --out runs/ppo-vision
# The command runs on the first node, its workers on all; the same line again resumes. Every node needs the same
# environment and the folder. Time, memory, partition and account: as your cluster wants them.
#SBATCH --job-name=vgb-ray
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.txt
set -eu
[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
: "${VGB:=vgb}" "${RAY:=ray}" "${SLURM_JOB_NODELIST:?start this with sbatch --nodes=N}"
nodes=$SLURM_JOB_NUM_NODES cpus=$SLURM_CPUS_PER_TASK
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head:$((20000 + SLURM_JOB_ID % 20000))" # jobs may share a node
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  $RAY start --head --block --port="${address#*:}" --num-cpus="$cpus" --include-dashboard=false &
if [ "$nodes" -gt 1 ]; then # they try again until the head is up
  srun --overlap --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$head" \
    sh -c 'until "$@"; do sleep 5; done' - $RAY start --address="$address" --block --num-cpus="$cpus" &
fi
case " $* " in *" --workers "*) ;; *) set -- "$@" --workers $((nodes * cpus)) ;; esac
$VGB "$@" --engine ray --address "$address" --wait-for-nodes 300
