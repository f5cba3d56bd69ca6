"""Deploys: one stage a module, in the order they run.

serve                the whole of a serving deploy, stage by stage
check                plan and hosts compared, before anything is touched
change_steps         the lock, the record before each step, and the end of a change
base_system          user, directories, kernel settings
stage_weights        weights or a bundle, from host to host
install_engine       one release of the engine on every host; its parser takes the planned commands
place_files          files staged beside their places, then renamed
bring_up             the old ranks stop, the new ones start in order
verify               every rank answers, and what runs is what was planned
put_back             a kept plan takes the place of what is on the hosts
rollback             a kept plan put back because somebody asks for it
go_back              a change that failed puts back what was verified last
keep                 every host keeps the verified plan
prune                releases of the engine that nothing needs any more
summary              the endpoint, and how to try it
monitoring           Prometheus on the inventory's monitor, exporters on the hosts of groups
edge                 HAProxy on the inventory's edge, before the groups
preflight            an inventory checked without a recipe
roll                 groups of a fleet one after the other, and the edge after them
roll_edges           which groups of a roll leave the edges, and what is not there as it should be
edge_servers         the servers of groups at the edges: names, places, where they are
edge_drain           a group out of the edge while it is changed
way_out              one group out of the edges before a command stops it
former_group         what the group was called before, whether it may be replaced, and its way back
replace_former       the former group, stopped for the new one and taken away once that serves
leave                hosts that leave the inventory, stopped and cleaned
remove               a group, or everything that muster made, taken off the hosts
deployed_group       which group is on the hosts, and what each has of it
stop_restart_resume  a group that is on the hosts already ends or starts
shared/              what the stages share
"""
