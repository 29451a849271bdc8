#!/usr/bin/env bash
# One campaign as one SLURM job: Ray comes up on all nodes, the first one drives, all end together.
#   sbatch --nodes=4 cluster/slurm.sh quick /shared/lmia-store
#SBATCH --job-name=lmia
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-task=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=lmia-%j.log
set -euo pipefail

preset=${1:?"usage: sbatch cluster/slurm.sh PRESET STORE [lmia run options]"}
store=${2:?"the store: a folder on the shared file system, or s3://..."}
shift 2

cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH" # made by `make setup` on the shared file system, or by every node's image

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$head" | awk 'NR == 1 {print $1}')
port=$((20000 + SLURM_JOB_ID % 20000)) # another user's Ray may run on the same node

# Nobody else gets into this cluster: a token for this job alone.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
# Ray gives up after 30 s where importing from a shared file system takes longer.
export RAY_raylet_start_wait_time_s=300
# Node-local scratch for the cache; the store is the only thing that nodes share.
export LMIA_CACHE=${SLURM_TMPDIR:-/tmp}/lmia-cache-$SLURM_JOB_ID
export RAY_ADDRESS="$address:$port"

srun --kill-on-bad-exit=1 \
  ray symmetric-run --address "$address:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats \
  -- lmia run "$preset" --store "$store" --address "$address:$port" "$@"
