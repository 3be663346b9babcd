"""The face morphable model, learnt from landmark tracks: `train morphable`."""
