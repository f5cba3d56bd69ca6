"""Weights: which revision of a model is served, and how every host gets all of it.

    hub            asks a hub or ModelScope what a revision consists of, or reads a directory   network
    tokens         a hub's token, and the addresses it may go to
    gather         the wheels of a release, and a bundle's note, on a machine with a network    network
    staging_roles  what the hosts have -> who fetches, who serves, who is complete              pure
    keys           the pair keys of one run
    loader_requests  which hosts are to measure vLLM's loaders                                  pure
    staging_run    one staging run, shared by all hosts of it                                   pyinfra
    upload         files from the control machine to one host                                   pyinfra
    ask_hosts      every host asked about its weights                                           pyinfra

Pins and bundles are input (`spec.pins`, `spec.bundles`); where a revision lies is planned (`plan.weights_path`); the
transfer itself runs on the hosts (`on_host.transfer_*`).
"""
