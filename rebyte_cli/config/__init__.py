"""Settings and keys: where each value comes from, and how the files that hold them are written.

The words that settings are made of stand here, since the command line, the configuration file and
TAB completion agree on them and this package costs nothing to import.
"""

FORMATS = ("auto", "table", "json", "jsonl", "csv", "tsv", "id")  # of `-o` and `output`
EXECUTORS = ("opencode", "claude", "gemini", "codex")  # known ones; any string is passed on
