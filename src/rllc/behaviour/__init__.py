"""What heads do: attention scores and loss scores. No samplers here."""
