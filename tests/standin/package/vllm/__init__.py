"""Stand-in for vLLM: the same command line, ports and failures, no model. See tests/standin/__init__.py."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("vllm")
except PackageNotFoundError:
    __version__ = "0"
