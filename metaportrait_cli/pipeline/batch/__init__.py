"""Many jobs: read from a manifest, run one by one or side by side, each told as it ends."""
