"""One function a figure; nothing is computed here."""
