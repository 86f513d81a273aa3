{{/* A name of at most so many characters: a longer one ends with a part of its hash, so that no two names are equal. */}}
{{- define "workers.fit" -}}
{{- if le (len .name) .most -}}
{{ .name }}
{{- else -}}
{{ printf "%s-%s" (trunc (int (sub .most 9)) .name | trimSuffix "-") (sha256sum .name | trunc 8) }}
{{- end -}}
{{- end -}}

{{- define "workers.name" -}}
{{ .Values.nameOverride | default .Chart.Name }}
{{- end -}}

{{/* The beginning of the names of all objects. A release may have dots in its name, a pod's host name may not. */}}
{{- define "workers.fullname" -}}
{{- $name := include "workers.name" . -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- contains $name $release | ternary $release (printf "%s-%s" $release $name) -}}
{{- end -}}

{{/* The name of a set's objects: 46 characters leave room for what Deployments, pods and KEDA append. */}}
{{- define "workers.setname" -}}
{{ include "workers.fit" (dict "name" (printf "%s-%s" (include "workers.fullname" .root) .name) "most" 46) }}
{{- end -}}

{{- define "workers.setupname" -}}
{{ include "workers.fit" (dict "name" (printf "%s-setup" (include "workers.fullname" .)) "most" 46) }}
{{- end -}}

{{/* What pods of a component are selected by; never changed, as a Deployment's selector cannot be. */}}
{{- define "workers.selector" -}}
app.kubernetes.io/name: {{ include "workers.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- with .name }}
airflow-nats-executor/set: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "workers.labels" -}}
{{ include "workers.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}
