# The job scripts source this file. It starts ranks, passes signals on, and requeues the job.

pid=                                # the process that started the ranks, while they run
notice=                             # the first signal that reached this script

heard() {
    notice=${notice:-$1}
    [ -z "$pid" ] || kill -USR1 "$pid" 2>/dev/null
}
for name in USR1 TERM INT HUP; do trap "heard $name" $name; done

# SLURM runs a copy of the job script in another folder. The checkout is therefore the folder from
# which the job was submitted.
root=${NEDHPC_ROOT:-$SLURM_SUBMIT_DIR}
[ -f "$root/slurm/env.sh" ] || {
    echo "$root is not a checkout of nedhpc: submit from a checkout, or set NEDHPC_ROOT" >&2
    exit 2
}
. "$root/slurm/env.sh"

REQUEUE_ME=75                       # exit code of nedhpc: checkpointed on a signal or time limit
gpu_options=()                      # if the job has GPUs, it must not silently run on CPUs
[ "${SLURM_GPUS_ON_NODE:-0}" = 0 ] || gpu_options=(--set device.type=cuda)

# `python -c "$hold" PROGRAM ...` becomes PROGRAM ..., with TERM, INT and HUP blocked. At these
# signals mpirun would kill the ranks within half a second. SLURM waits longer (KillWait).
hold='import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
os.execvp(sys.argv[1], sys.argv[1:])'

# `run_nedhpc RANKS CONFIG ...` runs `nedhpc run CONFIG ...` on that many ranks and puts its exit
# code into $status. If USR1, TERM, INT or HUP reaches the job script, it sends USR1 to the ranks.
run_nedhpc() {
    local ranks=$1 config=$2 start; shift 2
    case $launcher in
        srun) start=(srun -n "$ranks" "${srun_options[@]}") ;;
        mpirun) start=(python -P -c "$hold" mpirun -n "$ranks" "${mpirun_options[@]}") ;;
        *) echo "launcher = '$launcher' in slurm/env.sh: it must be srun or mpirun" >&2; exit 2 ;;
    esac
    status=$REQUEUE_ME
    [ -z "$notice" ] || return 0
    "${start[@]}" python -P -m nedhpc run "$config" "${gpu_options[@]}" "$@" &
    pid=$!
    [ -z "$notice" ] || kill -USR1 $pid 2>/dev/null         # it came after the check above
    while kill -0 $pid 2>/dev/null; do wait $pid; done      # a trap interrupts wait: wait again
    wait $pid
    status=$?
    # If USR1 itself ended the process, it came before nedhpc installed its handler.
    [ $status != $((128 + $(kill -l USR1))) ] || status=$REQUEUE_ME
    pid=
}

# `step_reached RUN_DIR` prints the step of the newest checkpoint, or -1 if there is none.
step_reached() {
    local newest
    newest=$(ls "$1" 2>/dev/null | grep -x 'checkpoint-[0-9]\{10\}\.h5' | tail -n 1)
    newest=${newest#checkpoint-}
    if [ -n "$newest" ]; then echo $((10#${newest%.h5})); else echo -1; fi
}

# `run_requeued RUN_DIR CONFIG ...` starts or continues the run there, and requeues this job if
# nedhpc ends with 75, unless another signal than USR1 came first: scancel sends TERM. The job ends
# with an error after NEDHPC_MAX_RESTARTS (3) restarts in a row without a later checkpoint, because
# it would restart for ever. The file RUN_DIR/restarts holds the newest step at the last start, and
# the number of these restarts.
run_requeued() {
    local run_dir=$1 most=${NEDHPC_MAX_RESTARTS:-3} job=$SLURM_JOB_ID
    local reached before=-2 without=0; shift
    mkdir -p "$run_dir" || exit 1
    reached=$(step_reached "$run_dir")
    if [ "${SLURM_RESTART_COUNT:-0}" != 0 ] && [ -f "$run_dir/restarts" ]; then
        read -r before without <"$run_dir/restarts"
        if [ "$reached" -gt "$before" ]; then without=0; else without=$((without + 1)); fi
    fi
    if [ "$without" -ge "$most" ]; then
        echo "no new checkpoint in $without restarts (newest: step ${reached/#-1/none}):" \
            "the run is not started again. Give the job more time (--time) or an earlier notice" \
            "(--signal), or correct what the messages above say" >&2
        exit 1
    fi
    echo "$reached $without" >"$run_dir/restarts"
    run_nedhpc "$SLURM_NTASKS" "$@" --out "$run_dir" --resume auto
    if [ "$status" = $REQUEUE_ME ] && [ "${notice:-USR1}" = USR1 ]; then
        # In an array, the job id of one task can be the id of the whole array: name the task.
        [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
        scontrol requeue "$job" ||
            echo "job $job could not be requeued; to continue, submit it again" >&2
    fi
    exit "$status"
}
