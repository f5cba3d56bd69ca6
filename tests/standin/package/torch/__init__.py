"""Stand-in for PyTorch: enough to say its version."""

from torch import cuda, version

__version__ = version.__version__
__all__ = ["__version__", "cuda", "version"]
