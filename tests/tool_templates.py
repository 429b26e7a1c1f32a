"""Chat templates that have tools as the real families do, and the tokens that they need.

Written for these tests: prompts are shorter than the families' own, but what stands around tools,
calls and results is theirs.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

HERMES = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n<tools>' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\nAnswer with <tool_call>\\n{"name": NAME, "arguments": OBJECT}\\n</tool_call>' }}
{{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}
{%- if m.role == 'user' or (m.role == 'system' and not loop.first)
    or (m.role == 'assistant' and not m.tool_calls) %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}
{{- '<|im_start|>assistant' }}{%- if m.content %}{{- '\\n' + m.content }}{%- endif %}
{%- for call in m.tool_calls %}{%- if call.function is defined %}{%- set call = call.function %}
{%- endif %}{{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
{{- call.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}
{%- endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

LLAMA = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{%- set rule = messages[0].content | trim %}
{%- set messages = messages[1:] %}{%- else %}{%- set rule = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}{{- 'Environment: ipython\\n' }}{%- endif %}{{- rule + '<|eot_id|>' }}
{%- if tools is not none %}{%- set question = messages[0].content | trim %}
{%- set messages = messages[1:] %}{{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
{{- 'Respond in the format {"name": NAME, "parameters": OBJECT}.\\n\\n' }}
{%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
{{- question + '<|eot_id|>' }}{%- endif %}
{%- for m in messages %}
{%- if not (m.role == 'ipython' or m.role == 'tool' or 'tool_calls' in m) %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
{%- elif 'tool_calls' in m %}
{%- if m.tool_calls | length != 1 %}{{- raise_exception('only one call at a time') }}{%- endif %}
{%- set call = m.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}
{{- '}<|eot_id|>' }}
{%- else %}{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
{{- m.content | tojson }}{{- '<|eot_id|>' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

#: The questions and answers of Mistral's templates take turns; their ids have nine characters.
_MISTRAL = """\
{%- if messages[0].role == 'system' %}{%- set rule = messages[0].content %}
{%- set messages = messages[1:] %}{%- endif %}
{%- for m in messages %}{%- for call in m.tool_calls or [] %}
{%- if call.id is not defined or call.id | length != 9 %}
{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
{%- endif %}{%- endfor %}{%- endfor %}
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools is not none and loop.first %}{{- '[AVAILABLE_TOOLS]' }}{{- tools | tojson }}
{{- '[/AVAILABLE_TOOLS]' }}{%- endif %}
{{- '[INST] ' }}{%- if loop.last and rule is defined %}{{- rule + '\\n\\n' }}{%- endif %}
{{- m.content + '[/INST]' }}
{%- elif m.tool_calls %}CALLS{{- eos_token }}
{%- elif m.role == 'assistant' %}{{- ' ' + m.content + eos_token }}
{%- elif m.role == 'tool' %}
{{- '[TOOL_RESULTS] {"content": ' + m.content | tojson + ', "call_id": "' + m.tool_call_id }}
{{- '"}[/TOOL_RESULTS]' }}
{%- else %}{{- raise_exception('unknown role') }}{%- endif %}{%- endfor %}"""
MISTRAL = _MISTRAL.replace(
    "CALLS",
    """{{- '[TOOL_CALLS] [' }}{%- for call in m.tool_calls %}
{%- set out = call.function | tojson %}{{- out[:-1] + ', "id": "' + call.id + '"}' }}
{{- ']' if loop.last else ', ' }}{%- endfor %}""",
)
NEW_MISTRAL = _MISTRAL.replace(
    "CALLS",
    """{{- m.content }}{%- for call in m.tool_calls %}
{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + call.function.arguments | tojson }}
{%- endfor %}""",
)
MISTRAL_WITH_IDS = NEW_MISTRAL.replace("+ '[ARGS]' +", "+ '[CALL_ID]' + call.id + '[ARGS]' +")
#: No family's: JSON alone, several calls, names, no rules.
PLAIN = """\
{%- for tool in tools or [] %}{{- tool | tojson + '\\n' }}{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'system' %}{{- raise_exception('no rules') }}{%- endif %}
{{- m.role + (' ' + m.name if m.name else '') + ':' }}
{%- if m.tool_calls %}{%- for call in m.tool_calls %}{{- call.function | tojson + '\\n' }}
{%- endfor %}{%- else %}{{- m.content }}{%- endif %}{{- eos_token }}{%- endfor %}
{%- if add_generation_prompt %}{{- 'assistant:' }}{%- endif %}"""
#: Knows no tools.
NONE = """\
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
#: Has tools, but writes calls in a way of its own.
OTHER = """\
{%- for tool in tools or [] %}{{- tool | tojson + '\\n' }}{%- endfor %}
{%- for m in messages %}{{- m.role + ':' + m.content }}
{%- for call in m.tool_calls or [] %}{{- '<' + call.function.name + '>' }}
{%- for key, value in call.function.arguments.items() %}{{- key + '=' + value }}{%- endfor %}
{%- endfor %}{{- eos_token }}{%- endfor %}
{%- if add_generation_prompt %}{{- 'assistant:' }}{%- endif %}"""

TEMPLATES: Mapping[str, str] = {
    "hermes": HERMES,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "new mistral": NEW_MISTRAL,
    "mistral with ids": MISTRAL_WITH_IDS,
    "plain": PLAIN,
    "none": NONE,
}
#: Special tokens: what is skipped in an answer's text.
_SPECIAL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<|python_tag|>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]"),
    *("[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[ARGS]"),
    "[CALL_ID]",
)
#: Tokens that are text, as Qwen has them.
_PLAIN_ADDED = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", '{"name": "', "name"),
    *('", "arguments": ', '", "parameters": ', "arguments", "parameters", "function", "weather"),
)
VOCABULARY = 256 + len(_SPECIAL) + len(_PLAIN_ADDED)


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes with the families' tokens and a template; do not change it."""
    made = bare_tokenizer()
    made.chat_template = TEMPLATES.get(name, name)
    return made


def bare_tokenizer() -> Any:
    """Return the tokenizer without a template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    made.add_tokens([AddedToken(text, special=False) for text in _PLAIN_ADDED])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
