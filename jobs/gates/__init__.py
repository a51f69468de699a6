"""Gates: checks that a finished run has to pass before it is published, and its release by hand.

`judging.judge` makes the checks of a run, `drift` has the statistics, `canaries` the labelled
examples that actors are asked, `history` keeps what
was found, `release.let_through` releases a quarantined run.
"""
