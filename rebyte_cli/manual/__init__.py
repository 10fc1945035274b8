"""The manual, completion tables and skill, generated from the command tree.

    tree.py               the Click commands as plain documents: what `rebyte schema` prints
    facts.py              exit statuses, environment variables, the date of the last revision
    pages/                hand-written pages in Markdown, with placeholders for generated parts
    builder.py            every page in Markdown
    roff.py               Markdown to the man(7) language
    reader.py             shows, installs and removes pages

`python -m rebyte_cli.manual` writes all generated files into the checkout; a test fails if they are
out of date.
"""
