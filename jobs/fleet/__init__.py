"""The fleet: the Ray cluster, the actors on it, and the scheduler that hands them shards.

Others join a cluster through `cluster`, have actors process shards through `scheduler`, and show
how far they are through `progress`.
"""
