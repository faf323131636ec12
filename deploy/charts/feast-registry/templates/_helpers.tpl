{{- define "feast-registry.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Room is left for the suffix of the longest name that is made of it. */}}
{{- define "feast-registry.fullname" -}}
{{- $name := include "feast-registry.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 54 | trimSuffix "-" }}
{{- end }}

{{- define "feast-registry.selectorLabels" -}}
app.kubernetes.io/name: {{ include "feast-registry.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "feast-registry.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "feast-registry.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "feast-registry.serviceAccountName" -}}
{{- default (.Values.serviceAccount.create | ternary (include "feast-registry.fullname" .) "default") .Values.serviceAccount.name }}
{{- end }}

{{/*
The text of the server's feature_store.yaml, as far as the chart has it. Variables are replaced in the text before it is read as YAML: as JSON,
it has every string in quotes, which keep what is in a password.
*/}}
{{- define "feast-registry.config" -}}
{{- if .Values.featureStoreYamlBase64 }}
{{- .Values.featureStoreYamlBase64 | nospace | b64dec }}
{{- else if kindIs "string" .Values.config }}
{{- .Values.config }}
{{- else if .Values.config }}
{{- toRawJson .Values.config }}
{{- end }}
{{- end }}

{{/* What follows from the values, as JSON; values that do not go together are refused. */}}
{{- define "feast-registry.facts" -}}
{{- $values := .Values -}}
{{- $sources := list -}}
{{- if $values.config }}{{ $sources = append $sources "config" }}{{ end -}}
{{- if $values.featureStoreYamlBase64 }}{{ $sources = append $sources "featureStoreYamlBase64" }}{{ end -}}
{{- if $values.existingSecret.name }}{{ $sources = append $sources "existingSecret" }}{{ end -}}
{{- range $values.env }}
{{- if has .name (list "FEAST_REGISTRY_URL" "FEATURE_STORE_YAML_BASE64" "FEAST_FS_YAML_FILE_PATH") }}{{ $sources = append $sources (printf "env (%s)" .name) }}{{ end }}
{{- end -}}
{{- if gt (len $sources) 1 }}
{{- fail (printf "there is one configuration: set one of %s" (join ", " $sources)) }}
{{- end -}}
{{- $source := first $sources | default "" -}}

{{- $config := include "feast-registry.config" . | fromYaml -}}
{{- if hasKey $config "Error" }}
{{- fail (printf "%s is no feature_store.yaml: %s" $source $config.Error) }}
{{- end -}}
{{- $server := $config.registry_server | default dict -}}
{{- if and (kindIs "map" $server) $server.tls }}
{{- fail (printf "%s has registry_server.tls: set tls.secretName instead, so that probes and services speak TLS too" $source) }}
{{- end -}}

{{- $path := "" -}}
{{- if kindIs "map" $config.registry }}
{{- $path = $config.registry.path | default "" | toString }}
{{- else if $config.registry }}
{{- $path = toString $config.registry }}
{{- end -}}
{{- $isDefault := and (not $source) (ne $values.storage "shared") -}}
{{- if $isDefault }}{{ $path = printf "sqlite:///%s/registry.db" $values.persistence.mountPath }}{{ end -}}
{{- $seen := "" -}}
{{- if regexMatch "^(postgresql|mysql|mariadb|s3a?|gs|gcs|az|abfss|https)(\\+[a-z0-9_]+)?://" $path }}
{{- $seen = "shared" }}
{{- else if regexMatch "^(sqlite(\\+[a-z0-9_]+)?|file|memory)://" $path }}
{{- $seen = "local" }}
{{- else if and $path (not (contains "://" $path)) (not (hasPrefix "$" $path)) }}
{{- $seen = "local" }}
{{- end -}}

{{- $storage := eq $values.storage "auto" | ternary $seen $values.storage -}}
{{- if not $storage }}
{{- fail (printf "the chart cannot see in %s where the registry is: set storage to shared (a database or an object store) or to local (a file below %s)" $source $values.persistence.mountPath) }}
{{- end -}}
{{- if and $seen (ne $seen $storage) }}
{{- fail (printf "storage is %s, but the registry of %s is %s" $storage ($source | default "the default") $seen) }}
{{- end -}}
{{- if and (eq $storage "local") (or (gt (int $values.replicaCount) 1) $values.autoscaling.enabled) }}
{{- fail "the registry is in a file, which one pod serves: set replicaCount to 1 and autoscaling.enabled to false, or move the registry to a database or an object store (docs/scaling.md)" }}
{{- end -}}
{{- if and (eq $seen "local") (not (hasPrefix "memory:" $path)) }}
{{- $file := regexReplaceAll "^(sqlite[^:]*:///|file://)" (regexReplaceAll "[?].*$" $path "") "" -}}
{{- $isOnVolume := false -}}
{{- range append $values.extraVolumeMounts $values.persistence }}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $file }}{{ $isOnVolume = true }}{{ end }}
{{- end }}
{{- if not $isOnVolume }}
{{- fail (printf "the registry file `%s` is on no volume: give it an absolute path below %s (persistence.mountPath)" $file $values.persistence.mountPath) }}
{{- end }}
{{- end -}}

{{- $tls := $values.tls -}}
{{- if and $tls.clientCA.secretName (not $tls.secretName) }}{{ fail "tls.clientCA needs tls.secretName" }}{{ end -}}
{{- if and $tls.clientCertIdentity (not $tls.clientCA.secretName) }}{{ fail "tls.clientCertIdentity needs tls.clientCA.secretName" }}{{ end -}}

{{- $auth := $config.auth | default "" -}}
{{- if kindIs "map" $auth }}{{ $auth = $auth.type | default "" }}{{ end -}}
{{- $host := contains ":" $values.listenHost | ternary (printf "[%s]" $values.listenHost) $values.listenHost -}}
{{- $isTls := not (empty $tls.secretName) -}}
{{- dict
  "source" $source
  "isDefault" $isDefault
  "isLocal" (eq $storage "local")
  "path" ($isDefault | ternary $path "")
  "isOpen" (and (or $isDefault (has $source (list "config" "featureStoreYamlBase64"))) (not (or $auth (and (kindIs "map" $server) $server.tokens) $tls.clientCertIdentity)))
  "askKubernetes" (eq (toString $values.rbac.create) "auto" | ternary (eq $auth "kubernetes") (eq (toString $values.rbac.create) "true"))
  "isTls" $isTls
  "scheme" ($isTls | ternary "HTTPS" "HTTP")
  "grpcPort" ($isTls | ternary 6571 6570)
  "restPort" ($isTls | ternary 6573 6572)
  "defaultPort" ($isTls | ternary 443 80)
  "metricsAddress" (printf "%s:9570" $host)
  "hasMany" (or (gt (int $values.replicaCount) 1) $values.autoscaling.enabled)
  | toJson }}
{{- end }}
