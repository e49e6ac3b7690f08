"""Names of the events that a collection leaves in a trace's manifest."""

SHARD_COUNTS = "shard_counts"  # before each shard: rows, pads, and per layer ties and dropped; the last one of a shard counts
