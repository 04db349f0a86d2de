"""The coordinator of one training attempt: hosts the store, decides rounds, gathers reports.

It never touches a checkpoint or the Kubernetes API, and losing it costs nothing: workers keep
stepping, and a new one goes on from what the agents report. docs/rounds.md draws the rules.

__main__   starts the store, the server and the clock       (shell)
store      an empty store for every round                   (the only importer of torch)
server     HTTP: decodes, locks, answers                    (shell)
metrics    Prometheus families of a status document         (prometheus_client)
ledger     all that is known of the run; folds reports into it              (pure)
rounds     who is in which round, when it is broken, who is in the next     (pure)
incidents  first cause and the four durations of each broken round          (pure)
stragglers which ranks compute slower than the others                       (pure)
rollbacks  when a loss has gone wrong, and which batches are skipped then   (pure)
progress   losses by step, replays, step time                               (pure)
cadence    what saves cost, and so how often the run saves      (pure)
saved      which checkpoints there are, and which are no more               (pure)
"""
