"""The real vLLM (CPU build) on real systemd hosts: the literal commands of the README."""
