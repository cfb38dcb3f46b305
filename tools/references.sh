#!/bin/sh
# The reference policies from nothing: data, pretraining, warm-up, SFT and PPO, each step resumed where it was interrupted.
#
#   sh tools/references.sh            all of it; SEEDS="0 1 2" training seeds of SFT and PPO
#   sh tools/references.sh base       up to the pretrained base;  warmup, sft, ppo: up to there
#
# Run from the checkout. Budgets, and what is measured on the way: docs/references.md.
set -eu
VGB=${VGB:-.venv/bin/vgb}
DATA=${DATA:-data/references}
RUNS=${RUNS:-runs/train}
SEEDS=${SEEDS:-0}
LAST=${1:-ppo}

train() {  # trainer, recipe, further options; a run that is whole is left alone
    trainer=$1 recipe=$2 out=$3
    shift 3
    [ -f "$RUNS/$out/finished" ] && return
    "$VGB" train "$trainer" --recipe "$recipe" --out "$RUNS/$out" "$@"
    touch "$RUNS/$out/finished"
}
run_of() { [ "$2" = 0 ] && echo "$1" || echo "$1-$2"; }

"$VGB" scenes --count 40000 --out "$DATA/scenes"
"$VGB" scenes --count 1000 --seed 8 --out "$DATA/scenes-held-out"
"$VGB" scenes --count 1000 --seed 9 --split unseen --out "$DATA/scenes-development"
train grounding openvla-grounding openvla-grounding --processes 2

NEAR="distractor_object={pool: train, min_distance: 0.07}"
"$VGB" collect --world pretrain --episodes 1000 --wander 0.5 --out "$DATA/alone"
"$VGB" collect --world pretrain --episodes 1400 --wander 0.5 --seed 1010000 --shift "$NEAR" --swap --out "$DATA/two"
"$VGB" collect --world pretrain --episodes 375 --wander 0.5 --seed 1020000 --shift "$NEAR" --swap \
    --shift "distractor_receptacle={pool: train, min_distance: 0.07}" --out "$DATA/crowd"
train sft openvla-acting openvla-acting --processes 2
"$VGB" collect --world pretrain --episodes 2000 --wander 0.5 --out "$DATA/alone"
"$VGB" collect --world pretrain --episodes 2400 --wander 0.5 --seed 1010000 --shift "$NEAR" --swap --out "$DATA/two"
train sft openvla-base openvla-base --set "model.checkpoint=$RUNS/openvla-acting/checkpoint" --processes 2
"$VGB" eval --policy openvla --checkpoint "$RUNS/openvla-base/checkpoint" --policy-option temperature=0.25 \
    --world pretrain --suite development --episodes 64 --num-envs 8 --out runs/development/openvla-base
[ "$LAST" = base ] && exit

"$VGB" collect --episodes 2048 --out "$DATA/domain"
train sft openvla-warmup openvla-warmup --set "model.checkpoint=$RUNS/openvla-base/checkpoint" --processes 2
[ "$LAST" = warmup ] && exit
for seed in $SEEDS; do
    train sft openvla-sft "$(run_of openvla-sft "$seed")" --set "seed=$seed" --set "model.checkpoint=$RUNS/openvla-warmup/checkpoint" --processes 2
done
[ "$LAST" = sft ] && exit
for seed in $SEEDS; do
    train ppo openvla-ppo "$(run_of openvla-ppo "$seed")" --set "seed=$seed" --set "model.checkpoint=$RUNS/openvla-warmup/checkpoint"
done
