"""The page that `selfcascade web` serves; it says what to make, and the library makes it."""
