"""How a base reads requests and writes answers, in serving and in training alike. Imports nothing."""
