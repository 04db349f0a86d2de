"""The Export stage: the newest verified checkpoint becomes a Hugging Face folder, proven equal.

    python -m pretrain_llm.export

work      the stage: what is read, in what order, what is written
trained   the checkpoint as torchtitan's model, one process, no process group
folder    weights, config, token ids and tokenizer in Hugging Face's form
heldout   the held-out text: windows as training packs them, bits per byte
parity    do both models say the same
"""
