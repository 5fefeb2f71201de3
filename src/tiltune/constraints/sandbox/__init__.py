"""Code that nobody has read is run here, and how its tests ended comes back. No dependencies.

`base` says what a sandbox is, so that another (a container) can take the place of `local`, the one
that comes with the package. `available` finds what the kernel offers. `supervisor` is the program
around the code, in a process of its own: it takes rights away with `namespaces` or `landlock`,
`seccomp` and `privileges`, and ends everything with `descendants`. `inside` is the program within:
a judge that runs the tests, and a process of its own for the code; `bundle` hands it over, and
`dialogue` is what is said to the judge.

Nothing is imported here: the supervisor starts once a run and pays for each import.
"""
