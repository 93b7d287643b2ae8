#!/usr/bin/env bash
# findings/cluster.sh: submit the scripts of docs/cluster.md, as they stand there, to a Slurm that findings/slurm.sh
# starts. Each job gets three minutes, is warned two minutes before its end, and is requeued. Exits with 1 unless all
# complete. Run it in an environment with the requirements; EPOCHS must take longer than a minute and less than four.
#
# Guess: each job is requeued with its results and completes. Seen with slurmd==22.05.8 on two cores: the job with srun,
# the one with traps and both of the array COMPLETED 0:0 after 8 requeues in all; torchrun's, alone, ended its 60 epochs
# after 5. On a busy machine a minute is hardly enough for torchrun to start, so it may need a smaller EPOCHS than the
# others.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${SLURM_CONF:-}" ]; then
    exec "$root/findings/slurm.sh" "$root/findings/cluster.sh"
fi

work=$(mktemp -d)
cd "$root"
export OMP_NUM_THREADS=1
awk -v folder="$work" '/^```bash/ {n++; on=1; next} /^```/ {on=0} on {print > (folder "/" n ".sh")}' docs/cluster.md
flags=(--dataset digits --log_interval 1000 --epochs "${EPOCHS:-400}")
jobs=()
for n in 1 2 3; do
    jobs+=("$(sbatch --parsable --time=3 --output="$work/$n.out" "$work/$n.sh" "${flags[@]}" --results_dir "$work/$n")")
done
# The seeds and the directories of an array are in its script, so it runs elsewhere.
mkdir "$work/array"
ln -s "$root"/* "$work/array/"
rm "$work/array/results"
jobs+=("$(cd "$work/array" && sbatch --parsable --array=1-2 --time=3 --output="$work/4_%a.out" "$work/4.sh" "${flags[@]}")")
while squeue --noheader | grep -q .; do sleep 3; done
for job in "${jobs[@]}"; do
    scontrol show job "$job" | grep -oE "(JobName|JobState|Restarts|ExitCode)=\S+" | paste -sd ' '
done
grep -hE "Interrupted|Continuing|Best epoch|error" "$work"/*.out
[ "$(for job in "${jobs[@]}"; do scontrol show job "$job"; done | grep -c JobState=COMPLETED)" -eq 5 ] || exit 1
rm -rf "$work"
