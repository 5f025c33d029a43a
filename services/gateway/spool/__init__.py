"""The gateway's own disk for feedback that the log does not have (for certain) yet.

item       a statement's bytes and what it is known by
folder     one owner for each folder
table      the SQL: what lies on disk
disk       the thread that writes, many items a transaction
spool      bounds, order and figures on top of it
delivery   a statement to the log, with patience; whose are under way
sending    items to the log, in order for each rollout
drainer    empties the spool into Kafka
resends    embedded broker: how often something is sent again
confirmer  embedded broker: empties it when the learner's store has what lies there
"""
