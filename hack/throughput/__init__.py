"""Our training against bare torchtitan: tokens a second of the same model, batch and optimiser.

    make bench-throughput    on this machine's CPU; also the data loader's share of a step
    make bench-gpu           recipes of one GPU's size on a GPU: MFU, stall of a save, peak memory

`worker` trains one of the two in blocks of steps, each when it is told to, so that both take turns
within seconds and what else the machine does hits both. `measure` and `report` are pure.
"""
