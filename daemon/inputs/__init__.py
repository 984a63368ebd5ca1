"""The doors: bytes in, validated requests out, and events back."""
