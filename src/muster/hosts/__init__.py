"""The control machine's one way to hosts, over SSH.

programs       host programs as text for one SSH session, and the JSON that comes back: pure
printable      the one filter for text that hosts sent: pure
answer_fields  texts, numbers, names and paths of answers, with their bounds: pure
answer_models  what each host program may answer: pure
group_answers  what a host may say of the groups on it: pure
guard_answers  what a host's guard may answer: pure
check_answers  an answer against its model and its request: pure
ssh_session    one command over SSH, with bounds on time and size
open_session   a host program that is talked to for as long as a run lasts
run_programs   host programs run in one session, and their answers; one host or all of them
program_operation  one host program as a pyinfra command
operations     pyinfra operations, each named by its outcome
connect        connect the hosts of an inventory
explain        why a host could not be used, with a fix   pure
all_hosts      work on every host at once
once           work that whichever host asks first does for all
say            lines under a host's name
interrupts     Ctrl-C, which ends the program and not one connection
run_words      what a run asks before it stops what serves, and its last line
run_display    a run on a terminal or in a log: what changes, and how far it is
run_options    --dry, --diff, -y, -v: how a deploy is run
deploy_run     one deploy through pyinfra's own phases, for `muster`'s commands
uv_binary      the uv that goes to the hosts
secret_store   a group's secrets on the control machine
pyinfra_types  pyinfra's decorators and context, with types
"""
