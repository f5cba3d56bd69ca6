"""Programs that run on sandbox hosts; stdlib only, for the hosts' own Python (3.9 on)."""
