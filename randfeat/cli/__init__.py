"""The `randfeat` command, and what it measures of the machine."""
