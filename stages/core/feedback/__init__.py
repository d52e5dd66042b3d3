"""People's judgments: the pairs they are asked about, what they answered, and the preferences that
follow. Where pairs and answers are kept is ``stages.core.tracking.reviews``'s alone."""
