"""Released checkpoints -> safetensors files of our networks."""
