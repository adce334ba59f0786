"""Makes a picture or clip of each row in a file of prompts, on any number of processes, however often they are killed.

The content of the output folder decides what is left to do, and each part of it depends on the command and the rows
only. So processes need neither a queue nor a lock: every process would write the same bytes.
"""
