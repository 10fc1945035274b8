"""Land the changes of many tasks on one branch, one after the other.

Each task's patch is merged into the tree of the tip, checked, and committed. What conflicts or
fails the check is run again on the new tip, or left out. What was decided is in a journal before
anything follows from it: a landing that is killed and called again makes the same branch as one
that is left alone. The user's working tree, index and HEAD are never read or changed.
"""
