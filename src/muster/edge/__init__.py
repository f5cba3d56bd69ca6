"""Where clients arrive: HAProxy with TLS and keys before the groups, made from their plans. Pure: no host in reach.

edge_plan      what the edge needs of groups: models, endpoints, who says that they are ready
admission      how many requests run at once, wait, and what is left without a group
api_errors     the answers of the edge itself, in the OpenAI API's shape
groups_behind  the groups of an inventory that it is before
key_records    records of clients' keys, from what an operator names
certificate    whether a certificate can be served
haproxy_files  HAProxy's configuration and maps, as they lie in /etc/haproxy
fleet_page     the state of every group, as HAProxy shows it to operators
edge_machine   what an edge host gets: package, files, unit
"""
