"""How good the diagnosis is: sick trainings with a known fault, healthy ones with none."""
