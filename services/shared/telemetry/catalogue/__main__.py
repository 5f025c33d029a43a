"""Prints the page."""

from __future__ import annotations

from services.shared.telemetry.catalogue.page import render_page

print(render_page(), end="")
