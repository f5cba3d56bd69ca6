"""One more GPU of that host, and ports that llama has not."""

recipe = "gpt-oss-20b"
group = "gpt"
gpus = 1
gpu_devices = [4]
port = 8001
control_port = 29601
