"""Facts that the course quotes, with their sources and dates."""
