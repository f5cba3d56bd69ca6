"""Preflight: what is wrong with a host, known before anything touches it.

host programs (text) -> tool_text, smi -> host_report ─┐
                                                       ├─> checks, parity, ... -> Verdict -> table, JSON, status
plan + settings ------------------------------> needs ─┘

tool_text, smi, filters   the text of tools as values; unreadable text is a value too             pure
host_report      everything one host answered; read_report builds it from JSON                    pure
needs            what a plan needs of one host; plan_needs works it out                           pure
chosen_gpus      a report reduced to the GPUs that the group uses                                 pure
catalogue        the stable names of all checks                                                   pure
checks/          (report, needs) -> verdicts of one host                                          pure
deploy_checks    what a deploy needs of a host besides                                            pure
parity, clocks, pairs, meeting, allreduce   verdicts that need several hosts                      pure
verdict, outcome what a check found; all of them with waivers and exit status                     pure
group_files      what is wrong with a group's own files: a differing key, a masked unit           pure
drift            what has moved away from the plan                                                pure
table, node_set  an outcome for people; many hosts in few words
run_checks       asks every host, lets them measure, judges                                       pyinfra
measure_hosts    hosts measure the fabric between them                                            pyinfra
before_deploy    the preflight inside a deploy                                                    pyinfra
"""
