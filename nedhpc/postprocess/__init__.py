"""Figures, tables and fields from the HDF5 files of a run. Local, without MPI."""
