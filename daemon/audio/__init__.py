"""PCM to the sound card: ring, gain, sinks, and the one audio thread."""
