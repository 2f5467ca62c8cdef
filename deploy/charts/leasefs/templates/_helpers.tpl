{{/* Name of the objects. Not the release's: there is one leasefs in a cluster. */}}
{{- define "leasefs.name" -}}
{{- .Values.fullnameOverride | default .Chart.Name -}}
{{- end -}}

{{- define "leasefs.selector" -}}
app.kubernetes.io/name: leasefs
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "leasefs.labels" -}}
{{ include "leasefs.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "leasefs.image" -}}
{{- $repository := required "image.repository: say where your image of leasefs is; `make image` builds it" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "leasefs.pluginDir" -}}
{{ .Values.kubeletDir }}/plugins/csi.leasefs.io
{{- end -}}

{{/* The daemon's configuration, as the chart completes it. */}}
{{- define "leasefs.config" -}}
{{- if not .Values.connections -}}
{{- fail "connections: list at least one Vault that pods may use, such as {name: default, address: https://vault.example.com:8200}" -}}
{{- end -}}
{{- $defaults := deepCopy .Values.defaults -}}
{{- if and .Values.openshift.enabled (not (hasKey $defaults "selinuxContext")) -}}
{{- $_ := set $defaults "selinuxContext" "system_u:object_r:container_file_t:s0" -}}
{{- end -}}
{{- $config := dict "connections" .Values.connections -}}
{{- if $defaults -}}
{{- $_ := set $config "defaults" $defaults -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* secrets or volumeContext: where the kubelet puts the pods' tokens. */}}
{{- define "leasefs.tokenTransport" -}}
{{- $transport := .Values.defaults.tokenTransport | default "secrets" -}}
{{- if and (eq $transport "secrets") (semverCompare "<1.35.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "Kubernetes %s cannot pass tokens in the request's secrets (1.35 and later can): set defaults.tokenTransport: volumeContext. With helm template, name the cluster's version by --kube-version." .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $transport -}}
{{- end -}}

{{/* Audiences of the pods' tokens, sorted, each once, as a JSON list. */}}
{{- define "leasefs.audiences" -}}
{{- $audiences := list -}}
{{- range .Values.connections -}}
{{- $audiences = append $audiences (ternary (.audience | default "") "vault" (hasKey . "audience")) -}}
{{- end -}}
{{- concat $audiences .Values.extraAudiences | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* A Kubernetes quantity in bytes. */}}
{{- define "leasefs.bytes" -}}
{{- if kindIs "string" . -}}
{{- $factors := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- mulf (float64 $number) (get $factors (trimPrefix $number .)) | int64 -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{- define "leasefs.nodeBudget" -}}
{{- $budget := "256Mi" -}}
{{- if hasKey .Values.defaults "nodeBudget" -}}
{{- $budget = .Values.defaults.nodeBudget -}}
{{- end -}}
{{- include "leasefs.bytes" $budget -}}
{{- end -}}

{{/* Requests and limits: the given ones over those that follow from the budget. A budget of 0 is no limit. */}}
{{- define "leasefs.resources" -}}
{{- $budget := include "leasefs.nodeBudget" . | int64 -}}
{{- $mib := 1048576 -}}
{{- $requests := dict "cpu" "10m" "memory" (printf "%dMi" (add 64 (div (div $budget 4) $mib))) -}}
{{- $limits := dict -}}
{{- if $budget -}}
{{- $_ := set $limits "memory" (printf "%dMi" (add 256 (div (add $budget (sub $mib 1)) $mib))) -}}
{{- end -}}
{{- $resources := dict "requests" (merge (dict) (.Values.resources.requests | default dict) $requests) -}}
{{- with merge (dict) (.Values.resources.limits | default dict) $limits -}}
{{- $_ := set $resources "limits" . -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* GOMEMLIMIT: 0.8 of what the limit leaves to the daemon's own memory; nothing without a limit. */}}
{{- define "leasefs.goMemLimit" -}}
{{- with (include "leasefs.resources" . | fromYaml).limits -}}
{{- with .memory -}}
{{- $own := sub (include "leasefs.bytes" . | int64) (include "leasefs.nodeBudget" $ | int64) -}}
{{- if gt $own 0 -}}
{{- div (mul $own 4) 5 -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Ports of the connections' addresses and redirects, sorted, each once, as a JSON list. */}}
{{- define "leasefs.vaultPorts" -}}
{{- $ports := list -}}
{{- range .Values.connections -}}
{{- range concat (list .address) (.allowedRedirects | default list) -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $ports = append $ports ($port | default (ternary "80" "443" (eq $url.scheme "http"))) -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | toJson -}}
{{- end -}}
