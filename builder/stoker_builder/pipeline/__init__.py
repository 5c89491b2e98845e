"""The git pipeline: a push becomes a run, and a run ends in tested, running functions, or says why not.

    forge ─► Push ─► Runs.accept (stored) ─► policy.choose ─► a process for each run: checkout → stack → build → deploy
                          │                                         └─► lines and steps, stored as they come
                          └─► reporter: every change of a run's state to its forge, again until it is taken

`forge.py` is the seam for whoever keeps repositories, `policy.py` decides, `runs.py` acts, `store.py` remembers.
"""
