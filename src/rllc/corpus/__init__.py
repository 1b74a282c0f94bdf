"""Text to tokens: sources, tokenizer, memory-mapped tokens, planted domains, batch order. No models here."""
