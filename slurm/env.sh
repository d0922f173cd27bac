# This site's settings, sourced by every job script here: edit them once. $root is the checkout.

# Modules: the same as when scripts/setup ran (a loaded MPI and PETSC_DIR are used, not replaced).
# module load gcc openmpi

# The environment of scripts/setup; or activate your own before these lines, or submit from it.
# source "$HOME/venvs/nedhpc/bin/activate"
prefix=$("$root/scripts/setup") || exit 1
. "$root/scripts/env"

# What starts the ranks: mpirun (the environment's own, always right) or srun (where SLURM and MPI share a PMI; `srun --mpi=list`).
launcher=${NEDHPC_LAUNCHER:-mpirun}

# Threads of a rank: the cores of a task. One core a rank is the best use of CPUs here unless memory runs short.
threads=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}

srun_options=(--mpi=pmix "--cpus-per-task=$threads")
# Open MPI's (Intel MPI and MPICH: empty). Ranks are bound to cores only where the job's cores are its own: mpirun would bind the ranks
# of two jobs to the same.
mpirun_options=(--bind-to none)
if [ "$(env -u OMP_NUM_THREADS nproc)" = "$SLURM_CPUS_ON_NODE" ]; then
    mpirun_options=(--map-by "slot:PE=$threads" --bind-to core:overload-allowed)
fi
