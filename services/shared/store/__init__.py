"""The SQL store: tables, engine, migrations. Only the learner opens it."""
