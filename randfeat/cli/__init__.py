"""The `randfeat` command, and measurements of the machine."""
