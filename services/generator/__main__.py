"""`python -m services.generator`: the room as a process, with settings from the environment."""

from services.generator.main import run
from services.shared.settings import load_settings

run(load_settings())
