"""What dialects share: errors in OpenAI's shape, and choices that finish each for itself."""
