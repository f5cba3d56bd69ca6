"""Programs that run on sandbox hosts, for the hosts' own Python (3.9 on), standard library only: nvidia_smi, kept,
nv_fabricmanager, driver_log; all print from gpusim."""
