"""Benchmarks and evaluations of a running group: run on its head, kept in a ledger, compared, reported.

measured_group   a running group: fit to be measured? run a tool on its head       pyinfra
figures          each figure's key, words, unit and direction                      pure
scenario         the recipe's scenarios and their `vllm bench serve` commands      pure
bench_result     what `vllm bench serve` wrote                                     pure
engine_log       what an engine's log says of its start                            pure
start_phases     where the seconds of an engine's start go, process by process     pure
failed_requests  why requests failed, counted beside the tool                     pure
run_scenarios    run scenarios, keep every run
eval_task        the lm_eval command, and GSM8K from files                         pure
eval_result      what lm_eval wrote                                                pure
run_eval         run GSM8K, keep the scores
ledger           one JSON file for each run
regression_gate  new runs against kept ones: did it get worse?                     pure
roll_gate        the same between the groups of a roll, for scenarios and for GSM8K
report_data      what a report says, as data                                       pure
report_markdown  the report as Markdown                                            pure
report_charts    its charts, by matplotlib
report_page      the report as one HTML page
"""
