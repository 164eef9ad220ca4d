"""What observes and runs the gateway: configuration for other programs. The serving process imports nothing of it."""
