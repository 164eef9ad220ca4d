"""What one would write or use without a gateway, as yardsticks for its overhead: same model file, same answers."""
