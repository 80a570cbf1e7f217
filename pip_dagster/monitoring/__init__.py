"""Is it still right? Drift of features and scores, from the profiles that each scoring keeps."""
