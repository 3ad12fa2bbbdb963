"""moodal: reads emotion from text, voice and face together, and says how far each modality can be believed."""

__version__ = "0.1.0"
