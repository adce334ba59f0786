"""A file of prompts as pictures or clips: one a row, on any number of processes, however often they are killed.

What a folder of output holds decides what is left to do, and each part of it is a function of the command and the rows
alone. So processes need neither a queue nor a lock: whoever makes a part makes the same bytes.
"""
