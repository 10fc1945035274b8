"""Many tasks that survive anything: `rebyte batch`."""
