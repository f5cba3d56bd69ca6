"""The fault matrix on real hosts: what is done to a group, how soon it must be over, and what must hold throughout.

    matrix       the table: each fault, its bounds, and what a row's figures amount to     pure
    sightings    processes as seen over time, and the oracles on them                      pure
    watch        sees them: samples every process of both hosts' units
    group        one deployed group: its processes, its requests, its journal
    effects      what is done to it, by name
    scenes       the rows that are more than one fault and one recovery
    rows         carries one row out and measures it

`benchmarks/recovery.py` prints the table; `test_matrix.py` asserts it.
"""
