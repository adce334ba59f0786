"""The page that `selfcascade web` serves: it collects settings, and the library makes the pictures."""
