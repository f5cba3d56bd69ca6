"""The subcommands of `muster`, one module for each, and what they share.

options    INVENTORY and RECIPE, `--data`, `--strategy`, `--format`, `--ledger`: declared and read in one place
plan_text  a plan as text for people and as JSON for scripts
fleet_text the plans of several groups as one table
columns    rows of cells as lines of text
journal_text  the journals of several hosts as one text
out_directory  `--out`, and files written below it
git_files  files of a commit, fetched by the user's git into a cache

import_recipe  `muster import`: a recipe out of vLLM's own catalogue
recipe     a recipe out of a model's own config.json
plan       what every host would get
deploy     bring a group up; `muster rollback`, `stop`, `restart`, `resume` act on it; `muster stage`: its weights
remove     a group, or everything that muster made, taken off its hosts
preflight  what is wrong with hosts; `muster drift`: what has moved away from the plan
pin        which commit of a model is served
weights    what the hosts have of it: status, verify, prune
bundle     gather what hosts without a network need
status     the group as it is now
history    the verified plans that hosts keep
diff       what differs between two of them
top        the same, live, with its load and its last events
logs       what the units wrote, and what the guards kept of a failure
events     what happened to the groups, host by host in one order
bench      run the recipe's scenarios
eval       score the group with GSM8K
report     the ledger as HTML or Markdown
monitoring what a Prometheus needs to watch a group
edge       HAProxy's files before a group
key        clients' keys at the edge: add, list, revoke
sandbox    real systemd hosts on this machine
"""
