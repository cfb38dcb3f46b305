"""OpenVLA in plain PyTorch: one model, loader and processor from `pico` (tests) to `openvla/openvla-7b`.

Modules, from the interface inwards:

| module | what it holds |
|---|---|
| `policy`, `options`, `oft` | `OpenVLAPolicy`, what `vgb eval` runs; its options; its parallel decoding |
| `processor`, `images`, `actions` | images, sentences and actions to tensors and back |
| `config` | sizes as data |
| `checkpoint/` `loading`, `tensors`, `hub`, `saving`, `adapters` | Hugging Face layout, hub ids, adapters |
| `checkpoint/` `config_file`, `config_text`, `tokenizer` | the other files of a checkpoint |
| `model/` `vla`, `vision`, `vit`, `llama` | the network; its tensor names are those of `openvla/openvla-7b` |
| `model/` `decoding`, `sampling`, `l1_head` | action tokens, their probabilities; numbers in place of tokens |
| `model/` `value`, `lora` | what the trainers add: value heads, adapters |

Importing this package imports nothing heavy. It needs the extra `vla` (safetensors, tokenizers); neither timm nor
torchvision nor code from a checkpoint is used.
"""
