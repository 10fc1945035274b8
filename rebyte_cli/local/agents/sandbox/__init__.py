"""The jail, what it shows and what it reaches of the network, and programs in it."""

RECORDS = "jails"  # the folder, beside the code, with a file for each jail (see jail_group.py)
