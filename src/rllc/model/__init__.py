"""One transformer family with an explicit head axis, the parts of its weights, and the batched objective. No disk, no samplers."""
