"""Who may call the gateway over HTTP: API keys on the public port, administrators and rooms on the control port."""
