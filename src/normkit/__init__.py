"""normkit: record, normalize, penalize, decay and constrain the weight norms of neural networks."""
