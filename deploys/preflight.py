"""Checks every host of the inventory and prints a table; changes nothing on any host."""

from muster.deploys.preflight import preflight

preflight()
