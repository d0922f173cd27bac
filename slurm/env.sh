# Settings of this cluster. Every job script here sources this file: edit it once. $root is the
# checkout.

# Load the same modules as when you ran scripts/setup. It uses a loaded MPI and PETSC_DIR.
# module load gcc openmpi

# The environment of scripts/setup. To use another one, activate it here or before you submit.
# source "$HOME/venvs/nedhpc/bin/activate"
prefix=$("$root/scripts/setup") || exit 1
. "$root/scripts/env"

# The program that starts the ranks. mpirun belongs to the environment and always works. srun works
# only if SLURM has a PMI plugin that the MPI library supports (`srun --mpi=list`).
launcher=${NEDHPC_LAUNCHER:-mpirun}

# Cores of a rank. On CPUs, one core for each rank is fastest; give a rank more only if it needs
# more memory. nedhpc measures whether threads on all of them are faster than one. If you set
# OMP_NUM_THREADS or device.threads, it uses that number.
cores=${SLURM_CPUS_PER_TASK:-1}

srun_options=(--mpi=pmix "--cpus-per-task=$cores")
# Options of Open MPI's mpirun. For Intel MPI and MPICH, remove them and the `if`. Ranks are bound
# to cores only if the cores that the job sees are exactly its own; otherwise mpirun would bind the
# ranks of two jobs to the same cores.
mpirun_options=(--bind-to none)
if [ "$(env -u OMP_NUM_THREADS nproc)" = "$SLURM_CPUS_ON_NODE" ]; then
    mpirun_options=(--map-by "slot:PE=$cores" --bind-to core:overload-allowed)
fi
