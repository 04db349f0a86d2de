"""`PretrainRun` (pretrain.dev/v1alpha1): the one source of the CRD, its defaults and docs/api.md.

spec     what the user writes
status   what the operator reports
rules    CEL rules that the schema alone cannot say
run      one object, its spec and status parsed
parse    from the API server's JSON
"""

GROUP = "pretrain.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "PretrainRun"
PLURAL = "pretrainruns"
SHORT_NAME = "ptr"
