#!/usr/bin/env bash
# A grid on a Ray cluster that lasts as long as the job.
#
#     sbatch --nodes=4 --cpus-per-task=16 [--gpus-per-node=4] examples/slurm/ray.sh EXPERIMENT.toml DIR [further flags of rllc run]
#
# Ray's head and this script run on the job's first node, Ray's other nodes on the others; none of them needs to see DIR but the first. Nodes may be
# lost: their units are tried on others. The same call again goes on where it was.
#SBATCH --job-name=rllc-ray
#SBATCH --ntasks-per-node=1
#SBATCH --output=slurm-%x-%j.log
set -euo pipefail

experiment=$1
out=$2
shift 2
rllc=${RLLC:-rllc}
ray=${RAY:-ray}
export OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

# Whoever reaches the port of a Ray cluster may run programs in it: a token keeps others of the machine out. It lies in the home folder, which nodes share.
export RAY_AUTH_MODE=token
[ -s "$HOME/.ray/auth_token" ] || "$ray" get-auth-token --generate >/dev/null

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 20000))
address=${HEAD:-${nodes[0]}}:$port
cpus=${SLURM_CPUS_PER_TASK:-1}
here=(--num-cpus="$cpus" --block)
if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then here+=(--num-gpus="$SLURM_GPUS_ON_NODE"); fi
step=(srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$cpus")

steps=()
trap '[ "${#steps[@]}" -eq 0 ] || kill "${steps[@]}" 2>/dev/null; wait' EXIT
"${step[@]}" --nodelist="${nodes[0]}" "$ray" start --head --port="$port" --include-dashboard=false "${here[@]}" &
steps+=($!)
for _ in $(seq 60); do
    if "$ray" status --address="$address" >/dev/null 2>&1; then break; fi
    sleep 2
done
for node in "${nodes[@]:1}"; do
    "${step[@]}" --nodelist="$node" "$ray" start --address="$address" "${here[@]}" &
    steps+=($!)
done

# No number of workers is given: nodes that come late, or are lost, are taken as they are.
$rllc run "$experiment" --out "$out" --engine ray --address "$address" "$@"
