"""What `rebyte doctor` checks: what a command would use here, and whether it works."""
