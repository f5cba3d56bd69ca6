"""What the stages of a deploy share: the run over one group, its progress, waiting, and the engine's resolution.

group_run         plan, what the hosts have, decision: made once, by the host that comes first
progress          which host has passed what
stop_question     what a stop costs, asked before it: pure
operator          who makes a change, and on which machine
transaction       one change: its lock on every host, its record, its end
gate              nobody passes before all have come
polling           units watched in short SSH sessions
guard_trouble     what keeps a guarded group from starting, and when waiting cannot help: pure
can_return        whether a group that is taken down could come back: pure
guard_commands    stop, restart and resume, by the guards
engine_addresses  where the files of an engine may come from: pure
services          services of the distribution with files of muster's
resolution        one resolution of a release for all hosts of a run
"""
