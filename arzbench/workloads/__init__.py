"""What runs: trainings behind one contract (`base.AbstractWorkload`)."""
