"""Documents become training batches: tokenizer, shards, FIM, packing and the loader."""
