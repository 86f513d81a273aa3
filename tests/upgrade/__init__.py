"""The last release and this code at once, and one after the other, on the same broker."""
