"""Checks every host of the inventory and prints a table; changes nothing on any host."""

from muster.preflight.before_deploy import preflight

preflight()
