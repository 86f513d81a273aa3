{{/* Egress to DNS and to the NATS servers, which set-up and workers need alike. */}}
{{- define "workers.egress" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $ports := list -}}
{{- range .Values.nats.servers -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $ports = append $ports ($port | default (get (dict "ws" "80" "wss" "443") $url.scheme) | default "4222" | int64) -}}
{{- end -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  {{- with $policy.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
- ports:
    {{- range uniq $ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with $policy.natsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
