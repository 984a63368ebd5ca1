"""Segments to PCM: llama.cpp, the heads, the codec."""
