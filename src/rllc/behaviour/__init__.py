"""What heads do: attention scores, loss scores, ablations of heads and paths, composition, circuits as token tables. No samplers here."""
