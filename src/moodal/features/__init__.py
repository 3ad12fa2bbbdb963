"""Features from media: one file per modality. They know nothing of data sets; a recipe brings the two together."""
