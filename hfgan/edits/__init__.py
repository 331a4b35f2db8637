"""`hfgan edit`: seeds, photos and recipes of pictures, moved along the directions of a model."""
