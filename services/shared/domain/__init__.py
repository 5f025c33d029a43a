"""Facts of the domain: frozen, keyword-only, standard library alone."""
