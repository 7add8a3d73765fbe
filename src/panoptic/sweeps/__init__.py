"""W&B sweep files run on this machine, without a server: reading, the ledger of trials, running, tables."""
