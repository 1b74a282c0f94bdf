#!/usr/bin/env bash
# A grid as a plain job array: no Ray, only a folder that all nodes see.
#
#     examples/slurm/array.sh EXPERIMENT.toml DIR [SHARDS]
#
# Three jobs that wait for each other: one makes the text and the model, SHARDS of them sample every SHARDS-th unit, one gathers what they have, samples
# what a lost one left over, and writes the page. The same call again goes on where it was. Each has CPUS processors (1 unless given) and as many workers.
# What your cluster wants besides (account, partition, memory, GPUs, a module or environment to load) goes to sbatch by its variables, such as
# SBATCH_ACCOUNT and SBATCH_PARTITION, or into the lines below.
set -euo pipefail

# A word for the shell that runs a job, whatever it holds; that shell is sh, which does not read all that printf %q writes.
quoted() {
    local quote="'\\''"
    printf "'%s'" "${1//\'/"$quote"}"
}

experiment=$(quoted "$1")
out=$(quoted "$2")
shards=${3:-8}
rllc=${RLLC:-rllc}  # how the program is called on the nodes
logs=${2//'%'/'%%'} # sbatch reads %j and the like in names of logs
common=(--parsable --cpus-per-task="${CPUS:-1}" --time="${TIME:-04:00:00}" --export=ALL,OMP_NUM_THREADS=1 --output="$logs/slurm-%x-%j.log")
mkdir -p "$2"

prepare=$(sbatch "${common[@]}" --job-name=rllc-prepare --wrap="$rllc train $experiment --out $out")
array=$(sbatch "${common[@]}" --job-name=rllc-shard --output="$logs/slurm-%x-%A-%a.log" --array="1-$shards" --requeue --dependency="afterok:$prepare" \
    --kill-on-invalid-dep=yes --wrap="$rllc sample $experiment --out $out --workers \$SLURM_CPUS_PER_TASK --shard \$SLURM_ARRAY_TASK_ID/$shards")
gather=$(sbatch "${common[@]}" --job-name=rllc-gather --dependency="afterany:$array" --kill-on-invalid-dep=yes \
    --wrap="$rllc run $experiment --out $out --workers \$SLURM_CPUS_PER_TASK")
echo "prepare $prepare, array $array of $shards, gather $gather: squeue --me"
