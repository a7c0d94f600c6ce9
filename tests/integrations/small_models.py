"""Small models of transformers from their configurations, with weights from a seed."""

import pytest

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
transformers = pytest.importorskip("transformers", reason="pip install '.[transformers]'")

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 16,
    "initializer_range": 0.13,
    "max_position_embeddings": 40,
}
TOKENS = torch.arange(2 * 9).reshape(2, 9) * 7 % 50
PADDING = (torch.arange(9) < torch.tensor([[9], [5]])).long()


def bert(**options):
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES | options)
    return transformers.BertModel(config, add_pooling_layer=False).double().eval()


def llama(**options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES | options, num_key_value_heads=2, pad_token_id=0)
    return transformers.LlamaForCausalLM(config).double().eval()


def mistral(sliding_window):
    torch.manual_seed(0)
    config = transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=sliding_window)
    return transformers.MistralForCausalLM(config).double().eval()


def hidden(model, tokens=TOKENS, **options):
    with torch.no_grad():
        return model(tokens, **options)[0]


def distance(a, b):
    return float(torch.linalg.norm(a - b) / torch.linalg.norm(b))


def run(model, name="randfeat"):
    model.set_attn_implementation(name)
    return model


def generated(model, tokens, mask=None, num=10, **options):
    """Greedy tokens, or those of beams, after a prompt."""
    mask = torch.ones_like(tokens) if mask is None else mask
    return model.generate(tokens, attention_mask=mask, max_new_tokens=num, do_sample=False, pad_token_id=0, **options)
