"""Settings: one frozen object a service, from the environment and one TOML file."""

from services.shared.settings.load import Settings, load_settings

__all__ = ["Settings", "load_settings"]
