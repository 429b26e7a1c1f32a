"""OpenAI's Responses API without state: each request becomes a chat, each chat's answer a response.

Imports what the chat's route imports; only its own route imports this.
"""
