"""Every type of transformers' models, one by one: answers as PEFT has them, or refused.

May import lib.
"""
