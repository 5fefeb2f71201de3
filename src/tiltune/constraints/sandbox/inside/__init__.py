"""What runs inside the walls: a judge that holds the tests, and a process of its own for the code.

The supervisor gives these files to the interpreter as text, which `runner` starts; nothing else of
the package is there. `judge` runs the tests and says the verdict, in the namespace that `space`
makes; `code` runs the code. Both speak through a `peer`: requests and answers, one at a time. Plain
data crosses by value (`wire`, of the types in `plain`), everything else as a `mirror` that asks its
owner. `policy` says what the code may ask of the judge's objects.
"""
