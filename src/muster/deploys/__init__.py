"""Deploys: one stage a module, in the order they run; `serve` is the whole of it."""
