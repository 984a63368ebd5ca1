"""Text to speakable segments, pure."""
