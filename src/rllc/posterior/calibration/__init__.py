"""Choosing step size, localization and temperature: a grid, what makes a setting healthy, where λ̂ is least sensitive, advice with reasons."""
