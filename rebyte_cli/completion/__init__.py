"""TAB completion.

The shell starts a process at each press of TAB, so it must be fast: the command tree comes from
tables generated from Click, without importing it, and the history is opened only if the word under
the cursor may name something in it.
"""
