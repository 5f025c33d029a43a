"""Faults that the verdict must see, one module each: a service's process with one function made wrong.

`python -m tests.benchmarks.chaos.planted.NAME` runs instead of `thumbloop ROOM`. No code of the services knows of it;
where that code has changed so that a fault cannot be planted any more, the module says so and ends.
"""
