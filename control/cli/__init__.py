"""The command line: `emass ...`, one file per command group, loaded when it is called."""
