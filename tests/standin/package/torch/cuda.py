"""Stand-in for PyTorch."""


def device_count() -> int:
    """Return how many GPUs the simulated driver shows."""
    import subprocess

    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())
