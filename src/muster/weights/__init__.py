"""Weights: which revision of a model is served, what it consists of, and who gets it from whom. Pure but for `hub`.

    pins       the file that says which commit and which bytes        reads and writes text
    options    the settings that concern weights                      pure
    layout     where a revision lies on a host                        pure
    listing    what a revision consists of                            pure
    staging    observations -> who fetches, who gives, who refuses    pure
    keys       pair keys of one run                                   pure
    hub        asks a hub or ModelScope, or reads a directory         network

The transfer itself runs on the hosts: `muster.on_host.transfer_*`.
"""
