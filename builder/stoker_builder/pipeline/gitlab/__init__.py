"""GitLab as a forge: push hooks come in, commits are fetched with a token, statuses go back.

Projects in groups of groups are refused: their names would not be one owner's and one repository's.
"""
