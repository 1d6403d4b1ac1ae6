"""The command line's commands, by group: what each understands. What it does is in `appliance/cli/`, imported late."""
