"""The policy: loading, scoring, packing, attention, log-probabilities, FSDP, saving."""
