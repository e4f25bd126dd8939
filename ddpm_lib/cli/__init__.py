"""The command line: a run in a folder, the commands, what they write."""
