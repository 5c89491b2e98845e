"""GitHub as a forge: webhooks come in, commits are fetched, statuses and comments go back.

    webhook ─► signature ─► delivery known? ─► events.py: what it means ─► Runs.accept, the repository noted ─► 202
    look    ─► deliveries that GitHub could not make, heads of branches that moved ─► the same way
    report  ─► pipeline/reports.py: what each commit is to show ─► check runs (an App) or commit statuses (a token)

`api.py` speaks to GitHub, through PyGithub, which is imported at the first request. `connection.py` knows the secrets.
"""
