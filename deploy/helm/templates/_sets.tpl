{{/* All sets as JSON, checked, each with its missing values from `workerDefaults`. */}}
{{- define "workers.sets" -}}
{{- $root := . -}}
{{- if hasKey .Values.workerDefaults "queues" -}}
{{- fail "workerDefaults.queues: name the queues of each set, workers.NAME.queues" -}}
{{- end -}}
{{- if not .Values.workers -}}
{{- fail "workers is empty: name at least one set, such as {default: {queues: [default]}}" -}}
{{- end -}}
{{- $sets := dict -}}
{{- range $name, $own := .Values.workers -}}
{{- $set := mergeOverwrite (deepCopy $root.Values.workerDefaults) $own -}}
{{- include "workers.check" (dict "root" $root "name" $name "set" $set) -}}
{{- $_ := set $sets $name $set -}}
{{- end -}}
{{- toJson $sets -}}
{{- end -}}

{{/* Ends with a message for the first value of a set that cannot work. */}}
{{- define "workers.check" -}}
{{- $path := printf "workers.%s" .name -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$" .name) -}}
{{- fail (printf "%s: names of objects come from that of the set: write at most 32 lower-case letters, digits and -" $path) -}}
{{- end -}}
{{- if not (or .set.loginSecret .root.Values.nats.anonymous) -}}
{{- fail (printf "%s.loginSecret is empty: name the Secret with the login of a NATS user for its queues (docs/how-to/kubernetes.md), or set nats.anonymous for servers without users" $path) -}}
{{- end -}}
{{- range $kind := list "initContainers" "sidecars" -}}
{{- range get $.set $kind -}}
{{- if eq .name "worker" -}}
{{- fail (printf "%s.%s: the chart's own container is called worker; give yours another name" $path $kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .set.keda.enabled -}}
{{- if gt (int64 .set.keda.min) (int64 .set.keda.max) -}}
{{- fail (printf "%s.keda.min is %d, above keda.max, which is %d" $path (int64 .set.keda.min) (int64 .set.keda.max)) -}}
{{- end -}}
{{- if not .root.Values.keda.monitoringEndpoint -}}
{{- fail (printf "keda.monitoringEndpoint is empty: name the Service of the NATS servers, such as nats-headless.nats.svc, or set %s.keda.enabled to false" $path) -}}
{{- end -}}
{{- end -}}
{{- $_ := include "workers.grace" . -}}
{{- end -}}

{{/* The grace of a set's pods: never less than a drain takes. */}}
{{- define "workers.grace" -}}
{{- $needed := add (int64 .set.drainSeconds) (int64 .set.killSeconds) (int64 .set.marginSeconds) -}}
{{- $given := .set.terminationGracePeriodSeconds -}}
{{- if not $given -}}
{{ $needed }}
{{- else if lt (int64 $given) $needed -}}
{{- fail (printf "workers.%s.terminationGracePeriodSeconds is %d, less than the %d of drainSeconds + killSeconds + marginSeconds: tasks would be cut off. Leave it out, raise it, or lower those" .name (int64 $given) $needed) -}}
{{- else -}}
{{ int64 $given }}
{{- end -}}
{{- end -}}

{{/* The name of a queue in a list, in double quotes where it needs them, as in nats_executor/wire/queue_names.py. */}}
{{- define "workers.quoted" -}}
{{- if or (contains "," .) (hasPrefix "\"" .) (hasPrefix "-" .) (ne . (trim .)) -}}
{{ printf "\"%s\"" (replace "\"" "\"\"" .) }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{/* The same before an equals sign, where a quote in the middle counts as well. */}}
{{- define "workers.pair_name" -}}
{{- if contains "\"" . -}}
{{ printf "\"%s\"" (replace "\"" "\"\"" .) }}
{{- else -}}
{{ include "workers.quoted" . }}
{{- end -}}
{{- end -}}

{{/* The queues of a set, separated by commas. */}}
{{- define "workers.listed" -}}
{{- $names := list -}}
{{- range . -}}
{{- $names = append $names (include "workers.quoted" .) -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* The queues of all sets, separated by commas, each once. */}}
{{- define "workers.queues" -}}
{{- $queues := list -}}
{{- range .Values.workers -}}
{{- $queues = concat $queues .queues -}}
{{- end -}}
{{- include "workers.listed" (uniq $queues | sortAlpha) -}}
{{- end -}}

{{/* The name of a queue's lowest consumer, as nats_executor/wire/names.py makes it. Its hash is none that Helm has. */}}
{{- define "workers.consumer" -}}
{{- $is_plain := regexMatch "^[A-Za-z0-9_-]{1,64}$" .queue -}}
{{- $is_marked := regexMatch "--([0-9a-f]{32}|b[0-9]+)$" .queue -}}
{{- if and $is_plain (not $is_marked) -}}
{{ .queue }}
{{- else -}}
{{- $hint := "airflow nats auth --user any --queues QUEUE shows it, after CONSUMER.MSG.NEXT and the stream's name" -}}
{{- required (printf "workers.%s.consumers has no entry for queue %q, whose name NATS does not take as it is: add one with the name of its consumer (%s)" .name .queue $hint) (get .set.consumers .queue) -}}
{{- end -}}
{{- end -}}

{{/* The consumers that a set pulls from, as JSON: name, queue's limit or 0. A limited queue has one band, as in settings.py. */}}
{{- define "workers.lanes" -}}
{{- $lanes := list -}}
{{- $bands := .root.Values.nats.priorityBands -}}
{{- range $queue := .set.queues -}}
{{- $consumer := include "workers.consumer" (dict "name" $.name "set" $.set "queue" $queue) -}}
{{- $limit := int64 (get $.root.Values.nats.queueLimits $queue | default 0) -}}
{{- $lanes = append $lanes (dict "consumer" $consumer "limit" $limit) -}}
{{- if not $limit -}}
{{- range $band := untilStep 1 (int (add1 (len $bands))) 1 -}}
{{- $lanes = append $lanes (dict "consumer" (printf "%s--b%d" $consumer $band) "limit" 0) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $lanes -}}
{{- end -}}
