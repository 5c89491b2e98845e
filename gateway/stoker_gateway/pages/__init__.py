"""The pages: what a browser sees of the platform. A process of its own, which uses the public APIs only.

    browser ─► proxy ─► pages ─► control (/system/functions, figures, logs)
                              └► pipeline (/system/runs), where there is git

HTML is made here, by Jinja with escaping everywhere; no page needs a script. Nothing is kept but signed sessions.
"""
