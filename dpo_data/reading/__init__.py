"""Raw bytes to records: files, decoding, JSON arrays, chat messages."""
