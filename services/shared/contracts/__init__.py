"""Between domain facts and the wire: one converter module an event, and the topic pages."""
