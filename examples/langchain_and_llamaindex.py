"""LangChain and LlamaIndex, by the base URL alone: adapters are models of OpenAI's API.

Shows: a chat, a stream and an answer held to a choice from LangChain, a completion from
       LlamaIndex, each from an adapter that is named as the model.
Run:   ./run demo                                    (in another terminal)
       pip install langchain-openai llama-index-llms-openai-like
       python examples/langchain_and_llamaindex.py
"""

import os

from langchain_openai import ChatOpenAI
from llama_index.llms.openai_like import OpenAILike

URL = os.environ.get("OVERTONE_URL", "http://127.0.0.1:8000") + "/v1"
KEY = os.environ.get("OVERTONE_API_KEY", "none")


def main() -> None:
    """Ask the demo's adapters."""
    legalese = ChatOpenAI(base_url=URL, api_key=KEY, model="legalese", temperature=0, max_tokens=24)
    print("LangChain, a chat:      ", repr(legalese.invoke("You may").content))
    pieces = [chunk.content for chunk in legalese.stream("You may")]
    print("LangChain, a stream:    ", repr("".join(pieces)), f"in {len(pieces)} pieces")
    held = legalese.bind(extra_body={"guided_choice": ["a right", "a duty"]})
    print("LangChain, held to two: ", repr(held.invoke("You may").content))

    shouting = OpenAILike(api_base=URL, api_key=KEY, model="shouting", temperature=0, max_tokens=24)
    print("LlamaIndex, completed:  ", repr(shouting.complete("The list").text))


if __name__ == "__main__":
    main()
