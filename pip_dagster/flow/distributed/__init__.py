"""One partition on many machines: its rows split by a hash of the key into tasks on a Ray cluster."""
