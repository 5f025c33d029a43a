"""`python -m services.cli` is `thumbloop`."""

from services.cli.main import app

app()
