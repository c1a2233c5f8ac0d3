"""IP-LoRA: words that count beside image tokens, trained and used."""
