"""The state of a running group, from the answers of its guards.

ask_guards    every guard of a group, over SSH at once
ask_edges     the edges before groups: how much clients ask for
host_events   what the guards of some hosts told, from their journals
group_status  their answers as one view                 pure
fleet_status  all groups of an inventory as one view     pure
failures      failure bundles of several hosts as one   pure
"""
