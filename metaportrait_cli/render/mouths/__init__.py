"""What is seen between lips: what a source shows of it, and what is drawn."""
