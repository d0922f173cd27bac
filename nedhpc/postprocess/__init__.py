"""HDF5 in, figure, table or field out. Local; needs no MPI."""
