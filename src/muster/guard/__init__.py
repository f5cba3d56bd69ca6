"""The group-restart guard: one unit per host, vLLM as its child, one generation at a time. Stdlib only."""
