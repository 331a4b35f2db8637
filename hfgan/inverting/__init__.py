"""`hfgan invert`: photos, files and folders of them, to the pictures and the latents that draw them."""
