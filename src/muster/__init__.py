"""From bare-metal GPU hosts to a serving vLLM cluster, on pyinfra.

Data flows one way: recipe and inventory -> topology -> command lines -> plan -> files and units -> effects.
Everything before the effects is pure: no pyinfra, no network, no clock. `muster plan` prints it with no host in reach.
"""

__version__ = "0.1.0"
