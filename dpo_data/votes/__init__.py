"""Who votes and how far each can be believed."""
