"""What a Prometheus needs to watch a group, made from its plan. Pure: text, and no host in reach.

targets        what is scraped: guards, engines, hosts and GPUs, each with its group, host and rank
rules          the alerts: what each means, when it fires, what to do
watched        the groups of one Prometheus, and the settings in which they agree
configuration  the files of Prometheus and Alertmanager, as they lie in /etc/prometheus
machines       what each machine gets: packages, files, units
grafana        dashboards, and where Grafana finds them
port_firewall  who may read one port of metrics
monitor_access whether the hosts let the monitor in
"""
