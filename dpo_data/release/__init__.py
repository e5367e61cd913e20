"""Files of a published version: shards, unpaired responses, card, fingerprint, checks."""
