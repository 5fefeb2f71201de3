"""What runs inside the walls: a judge that holds the tests, and a process of its own for the code.

The supervisor gives these files to the interpreter as text, which `runner` starts; nothing else of
the package is there. `judge` runs the tests and says the verdict; `code` runs the code. `names`
stand in the tests for what the code defines, and ask it over the lines of a `peer`: calls by name
with `plain` data, exceptions by name (`raised`), standard streams as text. Nothing else crosses.
"""
