"""Chaos: tries to break "no acknowledged feedback is lost, nothing counts twice, nothing is trained twice".

*Clients* chat over public HTTP and say what they think, each with a journal on disk. A *killer* ends services and
broker with SIGKILL, a *proxy* between services and broker cuts, slows and resets. When the load has stopped and the
system has settled, the *verdict* compares, id by id, what clients were told with what the store holds. `planted` holds
faults that the verdict must see.
"""
