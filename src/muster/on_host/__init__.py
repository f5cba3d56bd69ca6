"""Programs that run on the hosts' own Python: standard library only, Python 3.9 to 3.13, `main(request) -> answer`."""
