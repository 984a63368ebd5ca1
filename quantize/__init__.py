"""Offline tools: checkpoints to bundles, and the proof that nothing was lost on the way."""
