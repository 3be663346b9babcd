"""Files in and out: probing, frames with exact times, encoded video with sound, still images."""
