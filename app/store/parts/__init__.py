"""The parts of the store, one for each thing that it is asked about."""
