"""The content-addressed store and the labelled table. No torch here."""
