"""Features from media: one file per modality. They know nothing of data sets; whoever writes one brings the two together."""
