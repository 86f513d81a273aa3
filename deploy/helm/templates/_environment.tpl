{{/* The options that the chart itself sets, as JSON: variable and value. `set` is absent for the set-up. */}}
{{- define "workers.options" -}}
{{- $nats := .root.Values.nats -}}
{{- $bands := list -}}
{{- range $i, $band := $nats.priorityBands -}}
{{- if and $i (le (int64 $band) (int64 (index $nats.priorityBands (sub $i 1 | int)))) -}}
{{- fail (printf "nats.priorityBands: %d follows %d; write numbers, each greater than the one before" (int64 $band) (int64 (index $nats.priorityBands (sub $i 1 | int)))) -}}
{{- end -}}
{{- $bands = append $bands (int64 $band | toString) -}}
{{- end -}}
{{- $limits := list -}}
{{- range $queue, $limit := $nats.queueLimits -}}
{{- $limits = append $limits (printf "%s=%d" (include "workers.pair_name" $queue) (int64 $limit)) -}}
{{- end -}}
{{- $own := dict
  "AIRFLOW_CONFIG" (ternary "/etc/airflow/airflow.cfg" "/dev/null" (not (empty .root.Values.airflow.configMap)))
  "AIRFLOW__CORE__EXECUTOR" "nats_executor.NatsExecutor"
  "AIRFLOW__CORE__EXECUTION_API_SERVER_URL" (required "airflow.apiServerUrl is empty: name the execution API as workers reach it, such as http://airflow-api-server:8080/execution/" .root.Values.airflow.apiServerUrl)
  "AIRFLOW__NATS_EXECUTOR__SERVERS" (required "nats.servers is empty: name at least one server, such as tls://nats.nats.svc:4222" (join "," $nats.servers))
  "AIRFLOW__NATS_EXECUTOR__SUBJECT_PREFIX" $nats.subjectPrefix
  "AIRFLOW__NATS_EXECUTOR__REPLICAS" (int64 $nats.replicas | toString)
  "AIRFLOW__NATS_EXECUTOR__PRIORITY_BANDS" (join "," $bands | default "none")
  "AIRFLOW__NATS_EXECUTOR__QUEUE_LIMITS" (join "," $limits)
-}}
{{- if or $nats.tls.caSecret $nats.tls.caConfigMap -}}
{{- $_ := set $own "AIRFLOW__NATS_EXECUTOR__TLS_CA_FILE" (printf "/etc/nats/%s" $nats.tls.caKey) -}}
{{- end -}}
{{- with .set -}}
{{- $_ := set $own "AIRFLOW__NATS_EXECUTOR__DRAIN_SECONDS" (int64 .drainSeconds | toString) -}}
{{- $_ := set $own "AIRFLOW__NATS_EXECUTOR__KILL_SECONDS" (int64 .killSeconds | toString) -}}
{{- $_ := set $own "AIRFLOW__NATS_EXECUTOR__HEALTH_PORT" (int64 $.root.Values.health.port | toString) -}}
{{- end -}}
{{- toJson $own -}}
{{- end -}}

{{/* The variables that the values add to them, as JSON. Secrets are refused: they would be readable in the objects. */}}
{{- define "workers.added" -}}
{{- $added := dict -}}
{{- range $section, $options := .root.Values.airflow.config -}}
{{- range $option, $value := $options -}}
{{- $variable := printf "AIRFLOW__%s__%s" ($section | replace "." "_" | upper) (upper $option) -}}
{{- $_ := set $added $variable (kindIs "float64" $value | ternary ($value | toJson) ($value | toString)) -}}
{{- end -}}
{{- end -}}
{{- $added = mergeOverwrite $added .root.Values.airflow.env ((.set).env | default dict) -}}
{{- toJson $added -}}
{{- end -}}

{{- define "workers.require_public" -}}
{{- if regexMatch "(^AIRFLOW_CONN_|PASSWORD$|TOKEN$|NKEY_SEED$|SECRET_KEY$|JWT_SECRET$|FERNET_KEY$|SQL_ALCHEMY_CONN$)" . -}}
{{- fail (printf "%s is a secret, and values are none: put it into a Secret and name that in envFrom, or refer to it in extraEnv" .) -}}
{{- end -}}
{{- end -}}

{{/* `env` of a container. */}}
{{- define "workers.environment" -}}
{{- $own := include "workers.options" . | fromJson -}}
{{- $added := include "workers.added" . | fromJson -}}
{{- $extra := concat .root.Values.airflow.extraEnv ((.set).extraEnv | default list) -}}
{{- $names := concat (keys $added) -}}
{{- range $extra -}}
{{- $names = append $names .name -}}
{{- if hasKey . "value" -}}
{{- include "workers.require_public" .name -}}
{{- end -}}
{{- end -}}
{{- range keys $added -}}
{{- include "workers.require_public" . -}}
{{- end -}}
{{- range $names -}}
{{- if and (hasKey $own .) (ne . "AIRFLOW_CONFIG") -}}
{{- fail (printf "%s is set by the chart from values of its own (airflow.apiServerUrl, nats, health, drainSeconds, killSeconds): change those" .) -}}
{{- end -}}
{{- end -}}
{{- $all := mergeOverwrite $own $added -}}
{{- range $name := keys $all | sortAlpha }}
- name: {{ $name }}
  value: {{ get $all $name | quote }}
{{- end }}
{{- with $extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* `envFrom` of a container. The login comes last, as the last of several wins. */}}
{{- define "workers.env_from" -}}
{{- $from := concat .root.Values.airflow.envFrom ((.set).envFrom | default list) -}}
{{- with .login -}}
{{- $from = append $from (dict "secretRef" (dict "name" .)) -}}
{{- end -}}
{{- toJson $from -}}
{{- end -}}
