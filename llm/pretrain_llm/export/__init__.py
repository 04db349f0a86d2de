"""The Export stage: the newest verified checkpoint becomes a Hugging Face folder, proven equal.

    python -m pretrain_llm.export

work      the stage: what is read, in what order, what is written
soup      several checkpoints in place of one: which, and that they fit together
mean      the weights of one, or the mean of several
trained   torchtitan's model with them, one process, no process group
folder    weights, config, token ids and tokenizer in Hugging Face's form
heldout   the held-out text: windows as training packs them, bits per byte
parity    do both models say the same
"""
