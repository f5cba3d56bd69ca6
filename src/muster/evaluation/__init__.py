"""Evaluation: GSM8K through lm_eval against the endpoint, and what the score's standard error allows to say."""
