"""Which training slices moved which held-out margins, from gradients recorded during the run."""
