"""IP-Adapter-plus: image tokens and the attention that reads them."""
