"""The operator of PretrainRun: observe, plan, commit, act, report.

    cli                      the `pretrain` command and kubectl plugin
    handlers                 kopf only: watches, one serialised loop per run, wake-ups; no decision
    reconcile                the five steps and error handling
    cluster                  the only importer of the Kubernetes client
    coordinator_client       what a run's coordinator says
    metrics                  the only importer of prometheus_client
    loops, cache             when passes run, and what they see
    wire, refusals           pure: forms for the API server, what it refused
    plan                     pure: (run, observed, settings) -> Plan
    planner                  pure: memory, time and cost of a run before it starts
    children, story, summary, progress, restarts, stages, manifests     pure: parts of the plan
    case, config, faults, pod_facts, settings     pure
    conditions, planned, observed, api, names, times     pure, frozen

Arrows point down only; import-linter checks it (the layers are in pyproject.toml).
"""
