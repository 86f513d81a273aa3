{{/* What every pod of the chart has in common, as far as its security and its image go. */}}
{{- define "workers.pod" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 50000
  runAsGroup: 0
  fsGroup: 0
  seccompProfile:
    type: RuntimeDefault
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The image, and a container that can become nothing more than it is. */}}
{{- define "workers.container" -}}
image: {{ printf "%s:%s" .root.Values.image.repository (.root.Values.image.tag | default .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
# Not by way of the image's entrypoint: a shell or an init would pass a stop on to the tasks, or keep it from the worker.
command: [airflow]
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: {{ .read_only }}
{{- end -}}

{{- define "workers.mounts" -}}
{{- range $i, $path := .writable }}
- name: writable-{{ $i }}
  mountPath: {{ $path | quote }}
{{- end }}
{{- if .root.Values.airflow.configMap }}
- name: airflow-config
  mountPath: /etc/airflow
  readOnly: true
{{- end }}
{{- if or .root.Values.nats.tls.caSecret .root.Values.nats.tls.caConfigMap }}
- name: nats-ca
  mountPath: /etc/nats
  readOnly: true
{{- end }}
{{- end -}}

{{- define "workers.volumes" -}}
{{- $tls := .root.Values.nats.tls -}}
{{- if and $tls.caSecret $tls.caConfigMap -}}
{{- fail "nats.tls: caSecret and caConfigMap are both set; keep the one that has the CA" -}}
{{- end -}}
{{- range $i, $path := .writable }}
- name: writable-{{ $i }}
  emptyDir: {{ ternary (dict "sizeLimit" $.limit) dict (not (empty $.limit)) | toJson }}
{{- end }}
{{- with .root.Values.airflow.configMap }}
- name: airflow-config
  configMap:
    name: {{ . | quote }}
    items:
      - key: airflow.cfg
        path: airflow.cfg
{{- end }}
{{- if $tls.caSecret }}
- name: nats-ca
  secret:
    secretName: {{ $tls.caSecret | quote }}
    items:
      - key: {{ $tls.caKey | quote }}
        path: {{ $tls.caKey | quote }}
{{- else if $tls.caConfigMap }}
- name: nats-ca
  configMap:
    name: {{ $tls.caConfigMap | quote }}
    items:
      - key: {{ $tls.caKey | quote }}
        path: {{ $tls.caKey | quote }}
{{- end }}
{{- end -}}
