"""From raw videos to clips worth labelling: shots, and what each of them shows and lets hear."""
