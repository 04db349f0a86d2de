{{- define "pretrain-operator.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pretrain-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pretrain-operator.labels" -}}
{{ include "pretrain-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "pretrain-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "pretrain-operator.fullname" .) }}
{{- else }}
{{- required "serviceAccount.name: needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image of this project: (dict "root" $ "name" "trainer") */}}
{{- define "pretrain-operator.image" -}}
{{- printf "%s/%s:%s" .root.Values.image.prefix .name (.root.Values.image.tag | default .root.Chart.AppVersion) }}
{{- end }}

{{/* values.settings, with the project's image wherever a component has none. */}}
{{- define "pretrain-operator.settings" -}}
{{- $images := dict "coordinator" "trainer" "data" "data" "training" "trainer" "export" "trainer" "postTraining" "post-train" "serving" "serve" }}
{{- $templates := dict }}
{{- range $component, $name := $images }}
{{- $default := dict "image" (include "pretrain-operator.image" (dict "root" $ "name" $name)) }}
{{- with $.Values.image.pullSecrets }}{{ $_ := set $default "imagePullSecrets" . }}{{ end }}
{{- $given := get $.Values.settings.templates $component | default dict }}
{{- $_ := set $templates $component (merge (deepCopy $given) $default) }}
{{- end }}
{{- merge (dict "templates" $templates) (omit .Values.settings "templates") | toYaml }}
{{- end }}

{{/* What the operator does in the namespaces that it serves; nothing else. */}}
{{- define "pretrain-operator.rules" -}}
- apiGroups: [pretrain.dev]
  resources: [pretrainruns]
  verbs: [get, list, watch]
- apiGroups: [pretrain.dev]
  resources: [pretrainruns/status]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [list, watch, create, patch, delete]
# Pods in the place of failed ones, which their Job would make too, but later.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, create, delete]
# A pod on a lost node is marked failed: its Job does not replace it before.
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
# A claim is read and, if the run asks for it, made; never deleted.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
