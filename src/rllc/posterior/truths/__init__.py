"""Exact learning coefficients to test against: closed forms and quadrature (METHOD 3). No torch here."""
