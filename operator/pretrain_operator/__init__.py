"""The operator of PretrainRun: observe, plan, commit, act, report.

    handlers   kopf only: indexes, one serialised loop per run, wake-ups; no decision
    reconcile  the five steps and error handling
    cluster    the only importer of the Kubernetes client
    metrics    the only importer of prometheus_client
    plan       pure: (run, observed, settings) -> Plan
    faults, restarts, stages, manifests     pure
    conditions, names, observed, settings, api     pure, frozen

Arrows point down only; import-linter checks it.
"""
