"""Kept files become training documents: edited, grouped by repository, split into training and validation."""
