"""The words of `-o`, which the command line, the configuration and the screen agree on."""

FORMATS = ("auto", "table", "json", "jsonl", "csv", "tsv", "id")
