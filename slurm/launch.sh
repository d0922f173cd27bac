# Sourced by the job scripts: start ranks, pass signals on, requeue.

early=                              # a signal that came before the ranks
trap 'early=1' USR1 TERM

# SLURM runs a copy of the job script, so the checkout is where the job was submitted.
root=${NEDHPC_ROOT:-$SLURM_SUBMIT_DIR}
[ -f "$root/slurm/env.sh" ] || { echo "$root is no checkout of nedhpc: submit from one, or set NEDHPC_ROOT" >&2; exit 2; }
. "$root/slurm/env.sh"

REQUEUE_ME=75                       # nedhpc's exit code: checkpointed on a signal or ahead of the time limit
gpu_options=()                      # a job that was given GPUs must not run on CPUs unnoticed
[ "${SLURM_GPUS_ON_NODE:-0}" = 0 ] || gpu_options=(--set device.type=cuda)

# `run_nedhpc RANKS CONFIG ...`: `nedhpc run CONFIG ...` on that many ranks; its exit code in $status.
# USR1 and TERM that reach the job script are passed on as USR1.
run_nedhpc() {
    local ranks=$1 config=$2 start pid; shift 2
    case $launcher in
        srun) start=(srun -n "$ranks" "${srun_options[@]}") ;;
        mpirun) start=(mpirun -n "$ranks" "${mpirun_options[@]}") ;;
        *) echo "launcher = '$launcher' in slurm/env.sh: it must be srun or mpirun" >&2; exit 2 ;;
    esac
    status=$REQUEUE_ME
    [ -z "$early" ] || return 0
    "${start[@]}" python -m nedhpc run "$config" "${gpu_options[@]}" "$@" &
    pid=$!
    trap "kill -USR1 $pid 2>/dev/null" USR1 TERM
    while kill -0 $pid 2>/dev/null; do wait $pid; done      # a trap interrupts wait
    wait $pid
    status=$?
    [ $status != $((128 + $(kill -l USR1))) ] || status=$REQUEUE_ME      # signalled before nedhpc listened
    trap 'early=1' USR1 TERM
}

# The step of a run folder's newest checkpoint; -1 without one.
step_reached() {
    local newest
    newest=$(ls "$1" 2>/dev/null | grep -x 'checkpoint-[0-9]\{10\}\.h5' | tail -n 1)
    newest=${newest#checkpoint-}
    if [ -n "$newest" ]; then echo $((10#${newest%.h5})); else echo -1; fi
}

# `run_requeued RUN_DIR CONFIG ...`: start or continue the run there; requeue this job when nedhpc asks for it, whatever the reason.
# Ends with an error after NEDHPC_MAX_RESTARTS (3) restarts in a row that found no later checkpoint than the one before.
run_requeued() {
    local run_dir=$1 most=${NEDHPC_MAX_RESTARTS:-3} job=$SLURM_JOB_ID reached before=-2 without=0; shift
    mkdir -p "$run_dir" || exit 1
    reached=$(step_reached "$run_dir")
    if [ "${SLURM_RESTART_COUNT:-0}" != 0 ] && [ -f "$run_dir/restarts" ]; then
        read -r before without <"$run_dir/restarts"
        if [ "$reached" -gt "$before" ]; then without=0; else without=$((without + 1)); fi
    fi
    if [ "$without" -ge "$most" ]; then
        echo "no new checkpoint in $without restarts (newest: step ${reached/#-1/none}): not started again." \
            "Give the job more time (--time) or earlier notice (--signal), or look at the messages above" >&2
        exit 1
    fi
    echo "$reached $without" >"$run_dir/restarts"
    run_nedhpc "$SLURM_NTASKS" "$@" --out "$run_dir" --resume auto
    if [ "$status" = $REQUEUE_ME ]; then
        # One task's own job id is the whole array's.
        [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
        scontrol requeue "$job" || echo "job $job could not be requeued; submit it again to continue" >&2
    fi
    exit "$status"
}
