"""pyinfra's own configuration, such as `from pyinfra import config; config.SUDO = True`. None of it is set here.

pyinfra reads this file from the working directory, muster's commands read it from beside or above the inventory. A
failed host needs no FAIL_PERCENT: the deploys stop for all hosts of the group by themselves.
"""

from muster.hosts.run_words import words

words.end_when_interrupted()
