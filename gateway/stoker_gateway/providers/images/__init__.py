"""What an image is called, who we are to its registry, and which image a tag means now."""
