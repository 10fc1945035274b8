"""What is written about the command, generated from the command itself.

    tree.py       Click's commands as plain documents: what `rebyte schema` prints
    facts.py      exit statuses, variables, and the date of the pages
    pages/        the pages that somebody wrote, in Markdown, with places for generated parts
    commands.py   a page for each command, from the tree
    library.py    every page by its name: written, generated or both
    roff.py       Markdown to what man(1) reads
    tables.py     what TAB reads (see completion/answer.py)

`python -m rebyte_cli.manual` writes all of it into the checkout. A test fails when that was
forgotten.
"""
