"""How a base reads requests and writes answers, the same in serving and in training."""
