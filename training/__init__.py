"""How the starter voice is made. Empty so far: its weights come from a prototype outside this repository."""
