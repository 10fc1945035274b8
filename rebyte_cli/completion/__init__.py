"""TAB: what the shell is told while somebody types.

A shell asks for an answer at each press of a key, so nothing here may cost much: the command
tree is read from tables that were generated from Click, without importing it, and the history
is opened only where the word under the cursor names something in it.
"""
