"""How rows of teeth look, learnt from open mouths: `train teeth`."""
