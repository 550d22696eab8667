#!/bin/bash
# Trains in as many Slurm jobs as it takes, one after the other under one job number:
#
#   sbatch examples/slurm.sh --study my-study.toml --auto-budget
#   sbatch --time=04:00:00 examples/slurm.sh --study incident --timesteps 44000 --max-sessions 5
#
# All options go to `arzbench run`; give the same ones again to go on by hand. Reports and checkpoints are
# written below the folder that the job was submitted from.
#SBATCH --job-name=arzbench
#SBATCH --time=1-00:00:00
#SBATCH --cpus-per-task=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
cd "${SLURM_SUBMIT_DIR:-.}" || exit 1

arzbench run --quota auto "$@" &
run=$!
told= cancelled=
trap 'told=1; kill -USR1 "$run"' USR1             # two minutes before the walltime
trap 'told=1 cancelled=1; kill -TERM "$run"' TERM # scancel, preemption
wait "$run"; code=$?
while [ -n "$told" ]; do # a trap ends `wait`: the run is still saving
    told=
    wait "$run"; code=$?
done

# 4: saved, with more to do. 138: USR1 came before the run had begun. A cancelled job stays cancelled.
if [ -z "$cancelled" ] && { [ "$code" -eq 4 ] || [ "$code" -eq 138 ]; }; then
    trap - USR1 TERM
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60 # Slurm ends this script; it begins anew when the job is started again
fi
exit "$code"
