"""Time steppers of the flow: PETSc TS types, and step rules of our own under a TS of type python."""
