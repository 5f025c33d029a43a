"""The embedded run: broker and services as real processes of one machine, on free ports, with files in one folder.

A *plan* says what runs where; the *supervisor* starts it, restarts what dies and drains it; a *managed process* leads
its own process group; the *guardian* ends those groups when the supervisor itself is killed.
"""
