"""OpenVLA in plain PyTorch: one model, loader and processor from `pico` (tests) to `openvla/openvla-7b`.

Modules, from the outside in:

| module | what it holds |
|---|---|
| `policy` | `OpenVLAPolicy`, what `vgb eval` runs |
| `loading`, `tensors`, `hub`, `saving` | checkpoints: Hugging Face layout, adapters, hub ids |
| `processor`, `images`, `tokenizer`, `actions` | images, sentences and actions to tensors and back |
| `model`, `vision`, `vit`, `llama` | the network; its tensor names are those of `openvla/openvla-7b` |
| `decoding`, `oft`, `sampling` | action tokens: one after the other, in parallel, and their probabilities |
| `l1_head` | numbers instead of tokens: the regression head of OpenVLA-OFT |
| `value`, `lora` | what the trainers add: value heads, adapters |
| `config`, `config_file`, `config_text` | sizes as data |

Importing this package imports nothing heavy. It needs the extra `vla` (safetensors, tokenizers); neither timm nor
torchvision nor code from a checkpoint is used.
"""
