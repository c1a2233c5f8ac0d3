"""IP-LoRA: trained and used so that words count beside image tokens."""
