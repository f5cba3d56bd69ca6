"""Everything that vLLM's recipe catalogue offers for Hopper, held against what muster makes of it."""
