"""What runs beside a function in every replica: the front, the runner, and the fork server that makes replicas.

Started as processes only; nobody imports this package. `forkserver` is the one trusted process; everything that loads a
function's code runs confined (`confine`), as a fork of it.
"""
