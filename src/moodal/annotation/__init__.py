"""The labelling web app: the same clip as sound, as silent pictures, as text and whole, to different eyes and ears."""
